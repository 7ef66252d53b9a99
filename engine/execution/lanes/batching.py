"""What several tasks ask for, done in one call."""

import logging
from collections.abc import Callable, Sequence

from sigmagraph.engine.execution.calling.node_task import Around, NodeTask

log = logging.getLogger(__name__)


def answer_together(tasks: Sequence[NodeTask], around: Around, clock: Callable[[], float]) -> None:
    """Answer what they ask for, which has one key, and share the time out equally.

    Where the call fails nobody is answered: each does its own piece in its next step. So a piece that cannot be done,
    or memory that does not hold them all, is the matter of one job.
    """
    asked = [task.asked for task in tasks if task.asked is not None]
    began = clock()
    try:
        with around():
            answers = asked[0].together([request.argument for request in asked])
        if len(answers) != len(asked):
            raise ValueError(f"{len(answers)} answers to {len(asked)} questions")
    except BaseException as error:  # noqa: BLE001  # node code may raise anything; each job's own step says what is wrong
        log.warning("%d evaluations in one call failed (%s); they are done one by one", len(asked), error)
        return
    seconds = (clock() - began) / len(asked)
    for task, answer in zip(tasks, answers, strict=True):
        task.answer(answer, seconds)
