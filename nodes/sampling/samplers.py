"""Samplers with their settings on the node. Each is what a bare name means: the sampler of the chosen ComfyUI."""

from typing import Annotated, Literal

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Options, Range, Tooltip, node
from sigmagraph.nodes.support.graph_names import chosen_comfyui, solver_in_graph
from sigmagraph.nodes.support.types import Model, Sampler, SamplerValue
from sigmagraph.nodes.support.widgets import SamplerName

__all__ = ["NODES"]

CATEGORY = "sampling/custom_sampling/samplers"
ETA_OF_ER_SDE = (0, 32)  # the first ComfyUI in which it acts in plain ER-SDE
UPSCALE_METHODS = ["bislerp", "nearest-exact", "bilinear", "area", "bicubic"]
Amount = Annotated[float, Range(0.0, 100.0, step=0.01, round=False)]
Strongest = Annotated[float, Range(0.0, 64.0, step=0.01, round=False)]
Eta = Annotated[Amount, Tooltip("How much noise is renewed in a step; 0 is none.")]
NoiseScale = Annotated[Amount, Tooltip("Multiplies the noise that is drawn.")]
NoiseDevice = Annotated[
    Literal["gpu", "cpu"], Options(["gpu", "cpu"]), Tooltip("Where noise is drawn; the numbers differ on a GPU.")
]


def _sampler(name: str, **options: object) -> SamplerValue:
    solver = solver_in_graph(name)
    solver.checked(options)
    return SamplerValue(solver, options)


@node("SamplerEulerAncestral", category=CATEGORY, revision=2)
def euler_ancestral(*, eta: Eta = 1.0, s_noise: NoiseScale = 1.0) -> Sampler:
    """Euler's method with renewed noise."""
    return _sampler("euler_ancestral", eta=eta, s_noise=s_noise)


@node("SamplerEulerAncestralCFGPP", category=CATEGORY, revision=2, display_name="SamplerEulerAncestralCFG++")
def euler_ancestral_cfg_pp(
    *,
    eta: Annotated[float, Range(0.0, 1.0, step=0.01, round=False)] = 1.0,
    s_noise: Annotated[float, Range(0.0, 10.0, step=0.01, round=False)] = 1.0,
) -> Sampler:
    """Euler's method with renewed noise, in CFG++ (Chung 2024, arXiv:2406.08070)."""
    return _sampler("euler_ancestral_cfg_pp", eta=eta, s_noise=s_noise)


@node("SamplerEulerCFGpp", category="_for_testing", display_name="SamplerEulerCFG++", experimental=True)
def euler_cfg_pp(
    *, version: Annotated[Literal["regular", "alternative"], Options(["regular", "alternative"])] = "regular"
) -> Sampler:
    """Euler's method in CFG++ (Chung 2024, arXiv:2406.08070), or along another direction."""
    return _sampler("euler_cfg_pp", version=version)


@node("SamplerLMS", category=CATEGORY)
def lms(*, order: Annotated[int, Range(1, 100)] = 4) -> Sampler:
    """Linear multistep (Adams-Bashforth on the schedule's own spacing)."""
    return _sampler("lms", order=order)


@node("SamplerDPMPP_3M_SDE", category=CATEGORY)
def dpmpp_3m_sde(*, eta: Eta = 1.0, s_noise: NoiseScale = 1.0, noise_device: NoiseDevice = "gpu") -> Sampler:
    """DPM-Solver++(3M) as an SDE."""
    return _sampler(_on(noise_device, "dpmpp_3m_sde"), eta=eta, s_noise=s_noise)


@node("SamplerDPMPP_2M_SDE", category=CATEGORY)
def dpmpp_2m_sde(
    *,
    solver_type: Annotated[Literal["midpoint", "heun"], Options(["midpoint", "heun"])] = "midpoint",
    eta: Eta = 1.0,
    s_noise: NoiseScale = 1.0,
    noise_device: NoiseDevice = "gpu",
) -> Sampler:
    """DPM-Solver++(2M) as an SDE (Lu 2022, arXiv:2211.01095)."""
    return _sampler(_on(noise_device, "dpmpp_2m_sde"), eta=eta, s_noise=s_noise, solver_type=solver_type)


@node("SamplerDPMPP_SDE", category=CATEGORY)
def dpmpp_sde(
    *, eta: Eta = 1.0, s_noise: NoiseScale = 1.0, r: Amount = 0.5, noise_device: NoiseDevice = "gpu"
) -> Sampler:
    """DPM-Solver++(2S) as an SDE, two evaluations a step."""
    return _sampler(_on(noise_device, "dpmpp_sde"), eta=eta, s_noise=s_noise, r=r)


@node("SamplerDPMPP_2S_Ancestral", category=CATEGORY, revision=2)
def dpmpp_2s_ancestral(*, eta: Eta = 1.0, s_noise: NoiseScale = 1.0) -> Sampler:
    """DPM-Solver++(2S) with renewed noise."""
    return _sampler("dpmpp_2s_ancestral", eta=eta, s_noise=s_noise)


@node("SamplerDPMAdaptative", category=CATEGORY, revision=2)
def dpm_adaptive(
    *,
    order: Annotated[int, Range(2, 3)] = 3,
    rtol: Amount = 0.05,
    atol: Amount = 0.0078,
    h_init: Amount = 0.05,
    pcoeff: Amount = 0.0,
    icoeff: Amount = 1.0,
    dcoeff: Amount = 0.0,
    accept_safety: Amount = 0.81,
    eta: Eta = 0.0,
    s_noise: NoiseScale = 1.0,
) -> Sampler:
    """DPM-Solver that chooses its own steps (Lu 2022, arXiv:2206.00927)."""
    controls = {"pcoeff": pcoeff, "icoeff": icoeff, "dcoeff": dcoeff, "accept_safety": accept_safety}
    return _sampler(
        "dpm_adaptive", order=order, rtol=rtol, atol=atol, h_init=h_init, eta=eta, s_noise=s_noise, **controls
    )


@node("SamplerER_SDE", category=CATEGORY, revision=3)
def er_sde(
    *,
    solver_type: Annotated[str, Options(["ER-SDE", "Reverse-time SDE", "ODE"], named=True)] = "ER-SDE",
    max_stage: Annotated[int, Range(1, 3)] = 3,
    eta: Eta = 1.0,
    s_noise: NoiseScale = 1.0,
) -> Sampler:
    """Extended reverse-time SDE solver (Cui 2023, arXiv:2309.06169); before ComfyUI 0.32 plain ER-SDE has no eta."""
    is_plain = solver_type == "ER-SDE"
    if is_plain and chosen_comfyui() < ETA_OF_ER_SDE:
        eta = 1.0
    if solver_type == "ODE" or eta == 0:
        return _sampler("er_sde", max_stage=max_stage, noise_scaler_power=1.0, s_noise=0.0)
    if is_plain:
        return _sampler("er_sde", max_stage=max_stage, eta=eta, s_noise=s_noise)
    return _sampler("er_sde", max_stage=max_stage, noise_scaler_power=eta + 1.0, s_noise=s_noise)


@node("SamplerSASolver", category=CATEGORY, revision=2)
def sa_solver(
    *,
    model: Model,
    eta: Annotated[float, Range(0.0, 10.0, step=0.01, round=False)] = 1.0,
    sde_start_percent: Annotated[float, Range(0.0, 1.0, step=0.001)] = 0.2,
    sde_end_percent: Annotated[float, Range(0.0, 1.0, step=0.001)] = 0.8,
    s_noise: NoiseScale = 1.0,
    predictor_order: Annotated[int, Range(1, 6)] = 3,
    corrector_order: Annotated[int, Range(0, 6)] = 4,
    use_pece: bool,
    simple_order_2: bool,
) -> Sampler:
    """Stochastic Adams solver (Xue 2023, arXiv:2309.05019): noise between the two percents, predictor and corrector."""
    percent_to_sigma = model.parameterisation.levels.percent_to_sigma
    return _sampler(
        "sa_solver",
        eta=eta,
        sde_start_sigma=percent_to_sigma(sde_start_percent),
        sde_end_sigma=percent_to_sigma(sde_end_percent),
        s_noise=s_noise,
        predictor_order=predictor_order,
        corrector_order=corrector_order,
        use_pece=use_pece,
        simple_order_2=simple_order_2,
    )


@node("SamplerSEEDS2", category=CATEGORY)
def seeds_2(
    *,
    solver_type: Annotated[Literal["phi_1", "phi_2"], Options(["phi_1", "phi_2"])] = "phi_1",
    eta: Eta = 1.0,
    s_noise: NoiseScale = 1.0,
    r: Annotated[float, Range(0.01, 1.0, step=0.01, round=False), Tooltip("Where the second stage is.")] = 0.5,
) -> Sampler:
    """SEEDS-2 (Gonzalez 2023, arXiv:2305.14267); phi_2 with r 1 is exp_heun_2_x0."""
    return _sampler("seeds_2", solver_type=solver_type, eta=eta, s_noise=s_noise, r=r)


@node("SamplerLCM", category=CATEGORY)
def lcm(
    *,
    s_noise: Annotated[Strongest, Tooltip("Multiplies the noise of the first step.")] = 1.0,
    s_noise_end: Annotated[Strongest, Tooltip("Multiplies the noise of the last step.")] = 1.0,
    noise_clip_std: Annotated[
        float,
        Range(0.0, 10.0, step=0.01, round=False),
        Tooltip("Cuts noise at so many standard deviations; 0 nowhere."),
    ] = 0.0,
) -> Sampler:
    """Consistency sampling (Luo 2023, arXiv:2310.04378); the multiplier goes evenly from the first step to the last."""
    return _sampler("lcm", s_noise=s_noise, s_noise_end=s_noise_end, noise_clip_std=noise_clip_std)


@node("SamplerLCMUpscale", category=CATEGORY)
def lcm_upscale(
    *,
    scale_ratio: Annotated[float, Range(0.1, 20.0, step=0.01)] = 1.0,
    scale_steps: Annotated[int, Range(-1, 1000, step=1), Tooltip("Steps in which it grows; -1 is half of them.")] = -1,
    upscale_method: Annotated[str, Options(UPSCALE_METHODS, named=True)] = "bislerp",
) -> Sampler:
    """Consistency sampling (Luo 2023, arXiv:2310.04378) in which the latent grows between steps."""
    steps = None if scale_steps < 0 else scale_steps
    return _sampler("lcm_upscale", scale=scale_ratio, scale_steps=steps, method=upscale_method)


@node("SamplerWithOptions", category=CATEGORY, display_name="Sampler With Options")
def sampler_with_options(
    *,
    sampler_name: SamplerName = "euler",
    options: Annotated[str, Tooltip("name=value, separated by commas; `sigmagraph samplers NAME` lists them.")] = "",
) -> Sampler:
    """Any sampler, in any revision (`name@2`), with any of its settings."""
    solver = solver_in_graph(sampler_name)
    settings = _settings(options)
    solver.checked(settings)
    return SamplerValue(solver, settings)


def _settings(text: str) -> dict[str, object]:
    """Read `eta=0.5, solver_type=heun` as names and values."""
    found: dict[str, object] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not name or not value:
            raise BadValue("options", part, "name=value, separated by commas")
        if name in found:
            raise BadValue("options", text, f"each name once; {name} is there twice")
        found[name] = _literal(value)
    return found


def _literal(text: str) -> object:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _on(device: str, name: str) -> str:
    return f"{name}_gpu" if device == "gpu" else name


NODES = (
    euler_ancestral,
    euler_ancestral_cfg_pp,
    euler_cfg_pp,
    lms,
    dpmpp_3m_sde,
    dpmpp_2m_sde,
    dpmpp_sde,
    dpmpp_2s_ancestral,
    dpm_adaptive,
    er_sde,
    sa_solver,
    seeds_2,
    lcm,
    lcm_upscale,
    sampler_with_options,
)
