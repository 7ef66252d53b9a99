// Every word that the pages say, in both languages. A new language is a third column here.

export const languages = { en: "English", de: "Deutsch" };

/** @type {Record<string, [string, string]>} */
const WORDS = {
  "nav": ["Pages", "Seiten"],
  "nav.home": ["Home", "Start"],
  "nav.run": ["Run", "Erzeugen"],
  "nav.gallery": ["Gallery", "Galerie"],
  "nav.system": ["System", "System"],
  "nav.api": ["API", "API"],
  "nav.editor": ["Editor", "Editor"],
  "skip": ["To the content", "Zum Inhalt"],
  "theme": ["Colours", "Farben"],
  "theme.auto": ["Auto", "Auto"],
  "theme.light": ["Light", "Hell"],
  "theme.dark": ["Dark", "Dunkel"],
  "language": ["Language", "Sprache"],
  "offline": ["The server does not answer. Nothing you typed is lost; the page goes on when it is back.", "Der Server antwortet nicht. Nichts Getipptes geht verloren; sobald er wieder da ist, geht es weiter."],
  "signedOut": ["Your key is needed, or no longer valid. Nothing you typed is lost.", "Ihr Schlüssel fehlt oder gilt nicht mehr. Nichts Getipptes geht verloren."],
  "signIn": ["Sign in", "Anmelden"],
  "welcome": ["What would you like to see?", "Was möchten Sie sehen?"],
  "make": ["Make a picture", "Bild erzeugen"],
  "allSettings": ["All settings", "Alle Einstellungen"],
  "recent": ["Made lately", "Zuletzt entstanden"],
  "whatElse": ["What else there is", "Was es sonst gibt"],
  "card.run": ["Any workflow or picture as a form.", "Jeder Workflow, jedes Bild als Formular."],
  "card.gallery": ["What runs, what waits, what was made; make it again.", "Was läuft, was wartet, was entstand; und es wieder erzeugen."],
  "card.editor": ["The whole graph, node by node.", "Der ganze Graph, Knoten für Knoten."],
  "card.noEditor": ["Not installed. This command brings it:", "Nicht installiert. Dieser Befehl holt ihn:"],
  "card.api": ["Published workflows, to try and to call.", "Veröffentlichte Workflows, zum Probieren und Aufrufen."],
  "card.system": ["Devices, models, caches, log.", "Geräte, Modelle, Zwischenspeicher, Protokoll."],
  "noModel": ["No model was found. `sigmagraph fetch` brings one.", "Kein Modell gefunden. `sigmagraph fetch` holt eines."],
  "workflow": ["Workflow", "Workflow"],
  "templates": ["Templates", "Vorlagen"],
  "savedOnes": ["Saved", "Gespeichert"],
  "fromElsewhere": ["From a picture, file or job", "Aus Bild, Datei oder Auftrag"],
  "openFile": ["Open…", "Öffnen …"],
  "openFileHint": ["A picture that carries a workflow, or a workflow file; or drop it anywhere on this page", "Ein Bild mit Workflow darin oder eine Workflow-Datei; oder irgendwo auf diese Seite ziehen"],
  "opened": ["{name} is open", "{name} ist offen"],
  "save": ["Save…", "Speichern …"],
  "saveAs": ["Name of the workflow", "Name des Workflows"],
  "saved": ["{name} is saved", "{name} ist gespeichert"],
  "cannotOpen": ["This cannot be opened: {reason}", "Das lässt sich nicht öffnen: {reason}"],
  "cannotOpenFile": ["{name} cannot be opened: {reason}", "{name} lässt sich nicht öffnen: {reason}"],
  "noJson": ["it is not JSON", "es ist kein JSON"],
  "unknown": ["The node {name} is not on this server.", "Den Knoten {name} gibt es auf diesem Server nicht."],
  "unknownNear": ["The node {name} is not on this server; the nearest is {near}.", "Den Knoten {name} gibt es auf diesem Server nicht; am nächsten kommt {near}."],
  "moreSettings": ["More settings", "Weitere Einstellungen"],
  "notHere": ["{value} (not here)", "{value} (nicht vorhanden)"],
  "wholeNumber": ["A whole number is needed.", "Hier gehört eine ganze Zahl hin."],
  "wholeWithin": ["A whole number from {min} to {max} is needed.", "Hier gehört eine ganze Zahl von {min} bis {max} hin."],
  "numberWithin": ["A number from {min} to {max} is needed.", "Hier gehört eine Zahl von {min} bis {max} hin."],
  "dice": ["Dice", "Würfeln"],
  "diceHint": ["Take another seed now", "Jetzt einen anderen Startwert nehmen"],
  "locked": ["Kept", "Bleibt"],
  "unlocked": ["New each time", "Jedes Mal neu"],
  "lockedHint": ["The seed stays; press for a new one each time", "Der Startwert bleibt; drücken für jedes Mal einen neuen"],
  "unlockedHint": ["A new seed each time; press to keep this one", "Jedes Mal ein neuer Startwert; drücken, um diesen zu behalten"],
  "upload": ["Choose a picture…", "Bild wählen …"],
  "result": ["Result", "Ergebnis"],
  "stageEmpty": ["Your picture appears here.", "Hier erscheint Ihr Bild."],
  "progress": ["Progress", "Fortschritt"],
  "preview": ["Preview of the picture in the making", "Vorschau des entstehenden Bildes"],
  "pictureOf": ["Picture: {text}", "Bild: {text}"],
  "cancel": ["Cancel", "Abbrechen"],
  "waiting": ["Waiting", "Wartet"],
  "started": ["Running", "Läuft"],
  "running": ["Running: {node}", "Läuft: {node}"],
  "step": ["Step {value} of {max}, {left} left", "Schritt {value} von {max}, noch {left}"],
  "done": ["Done in {time}", "Fertig nach {time}"],
  "noPicture": ["Done in {time}; no new picture came of it", "Fertig nach {time}; ein neues Bild kam nicht heraus"],
  "cancelled": ["Cancelled", "Abgebrochen"],
  "failed": ["It failed: {reason}", "Fehlgeschlagen: {reason}"],
  "download": ["Download", "Herunterladen"],
  "inGallery": ["In the gallery", "In der Galerie"],
  "compareLast": ["Beside the last one", "Neben dem vorigen"],
  "comparing": ["Two pictures", "Zwei Bilder"],
  "compare": ["Compare", "Vergleichen"],
  "view": ["View", "Ansicht"],
  "view.slider": ["Slider", "Schieber"],
  "view.difference": ["Difference × {gain}", "Differenz × {gain}"],
  "difference": ["Difference of the two pictures", "Differenz der beiden Bilder"],
  "apart": ["PSNR {psnr} dB, rms {rms} of 255", "PSNR {psnr} dB, rms {rms} von 255"],
  "samePixels": ["Every pixel is the same.", "Jeder Bildpunkt ist gleich."],
  "otherSizes": ["They differ in size ({one} and {other}), so there are no figures.", "Sie sind verschieden groß ({one} und {other}), darum keine Zahlen."],
  "cannotCompare": ["There are no two pictures to compare here.", "Hier gibt es keine zwei Bilder zum Vergleichen."],
  "select": ["Select", "Auswählen"],
  "chosen": ["{count} selected", "{count} ausgewählt"],
  "archived": ["{count} pictures in one archive", "{count} Bilder in einem Archiv"],
  "deleteAllAsk": ["Forget {count} jobs? Their files stay in the output folder.", "{count} Aufträge vergessen? Ihre Dateien bleiben im Ausgabeordner."],
  "mask": ["Mask", "Maske"],
  "paintMask": ["Paint a mask…", "Maske malen …"],
  "maskHint": ["What is painted may change; the rest of the picture stays.", "Das Bemalte darf sich ändern; der Rest des Bildes bleibt."],
  "brushSize": ["Size of the brush", "Größe des Pinsels"],
  "erase": ["Erase", "Radieren"],
  "undo": ["Undo", "Rückgängig"],
  "clearMask": ["Clear", "Leeren"],
  "maskCleared": ["The mask is empty", "Die Maske ist leer"],
  "rectangle": ["Rectangle, in pixels", "Rechteck, in Bildpunkten"],
  "left": ["From the left", "Von links"],
  "top": ["From the top", "Von oben"],
  "fillRectangle": ["Fill the rectangle", "Rechteck füllen"],
  "rectangleDone": ["Rectangle of {width} by {height} at {x}, {y}", "Rechteck von {width} mal {height} bei {x}, {y}"],
  "keepMask": ["Use this mask", "Diese Maske nehmen"],
  "queue": ["Now", "Jetzt"],
  "made": ["Made", "Entstanden"],
  "search": ["Search", "Suchen"],
  "searchHint": ["Prompt, model, sampler, seed", "Prompt, Modell, Sampler, Startwert"],
  "state": ["State", "Zustand"],
  "state.all": ["All", "Alle"],
  "state.completed": ["Done", "Fertig"],
  "state.failed": ["Failed", "Fehlgeschlagen"],
  "state.cancelled": ["Cancelled", "Abgebrochen"],
  "state.pending": ["Waiting", "Wartet"],
  "state.in_progress": ["Running", "Läuft"],
  "count": ["{total} jobs", "{total} Aufträge"],
  "nothingFound": ["Nothing like this was made.", "Dergleichen ist nicht entstanden."],
  "nothingYet": ["Nothing was made yet.", "Noch ist nichts entstanden."],
  "showMore": ["Show more", "Mehr zeigen"],
  "details": ["Details", "Einzelheiten"],
  "close": ["Close", "Schließen"],
  "newer": ["Newer", "Neuer"],
  "older": ["Older", "Älter"],
  "noText": ["No text", "Kein Text"],
  "parameters": ["Parameters", "Parameter"],
  "change": ["Change and run", "Ändern und erzeugen"],
  "replay": ["Replay", "Nachspielen"],
  "replaying": ["Making it again…", "Wird noch einmal erzeugt …"],
  "verdict.identical": ["Identical: every pixel is the recorded one.", "Identisch: jeder Bildpunkt ist der aufgezeichnete."],
  "verdict.within tolerance": ["Within tolerance", "Innerhalb der Toleranz"],
  "verdict.different": ["Different", "Verschieden"],
  "verdict.nothing to compare": ["Made again; there is nothing to compare it with.", "Noch einmal erzeugt; es gibt nichts zum Vergleichen."],
  "psnr": [" (PSNR {value} dB)", " (PSNR {value} dB)"],
  "differs": ["{field}: was {was}, now {now}", "{field}: war {was}, jetzt {now}"],
  "workflowFile": ["Workflow file", "Workflow-Datei"],
  "delete": ["Delete", "Löschen"],
  "deleteAsk": ["Forget this job? Its files stay in the output folder.", "Diesen Auftrag vergessen? Seine Dateien bleiben im Ausgabeordner."],
  "deleteSure": ["Yes, forget it", "Ja, vergessen"],
  "deleted": ["Deleted", "Gelöscht"],
  "devices": ["Devices", "Geräte"],
  "memory": ["Memory of the machine", "Arbeitsspeicher"],
  "used": ["{used} of {total} in use", "{used} von {total} belegt"],
  "models": ["Models", "Modelle"],
  "fetchHint": ["What each model needs, and the command that brings it:", "Was jedes Modell braucht, und der Befehl, der es holt:"],
  "work": ["Work since the start", "Arbeit seit dem Start"],
  "hits": ["{share} % of results came from the cache ({hits} of {all} nodes).", "{share} % der Ergebnisse kamen aus dem Zwischenspeicher ({hits} von {all} Knoten)."],
  "nothingRan": ["Nothing has run yet.", "Noch ist nichts gelaufen."],
  "adminOnly": ["An administrator's key shows this.", "Das zeigt der Schlüssel eines Verwalters."],
  "ended.succeeded": ["Done", "Fertig"],
  "ended.failed": ["Failed", "Fehlgeschlagen"],
  "ended.cancelled": ["Cancelled", "Abgebrochen"],
  "ended.expired": ["Expired", "Verfallen"],
  "lastJobs": ["The last jobs, node by node", "Die letzten Aufträge, Knoten für Knoten"],
  "flameHint": ["All on one scale; grey is waiting. Point at a part for its node and time.", "Alle in einem Maßstab; grau ist Warten. Ein Zeiger darauf nennt Knoten und Zeit."],
  "keys": ["Keys and credit", "Schlüssel und Guthaben"],
  "keyName": ["Key", "Schlüssel"],
  "credits": ["Credits", "Guthaben"],
  "held": ["Held", "Vorgemerkt"],
  "spent": ["Spent", "Verbraucht"],
  "scopes": ["May", "Darf"],
  "perMinute": ["Calls a minute", "Aufrufe je Minute"],
  "revoked": ["revoked", "widerrufen"],
  "usual": ["as all", "wie alle"],
  "earlier": ["Earlier", "Früher"],
  "later": ["Later", "Später"],
  "presets": ["Presets", "Voreinstellungen"],
  "choosePreset": ["Choose a preset…", "Voreinstellung wählen …"],
  "keepPreset": ["Keep these settings", "Diese Einstellungen merken"],
  "presetName": ["Name of the preset", "Name der Voreinstellung"],
  "presetKept": ["{name} is kept", "{name} ist gemerkt"],
  "forgetPreset": ["Forget the preset", "Voreinstellung vergessen"],
  "versions": ["Versions", "Versionen"],
  "own": ["another build", "ein anderer Stand"],
  "absent": ["not installed", "nicht installiert"],
  "speaks": ["Speaks the protocol of ComfyUI", "Spricht das Protokoll von ComfyUI"],
  "log": ["Log", "Protokoll"],
  "logFilter": ["Filter the log", "Protokoll filtern"],
  "level": ["Level", "Stufe"],
  "level.all": ["Everything", "Alles"],
  "level.warning": ["Warnings and errors", "Warnungen und Fehler"],
  "level.error": ["Errors", "Fehler"],
  "noLines": ["No lines", "Keine Zeilen"],
  "field.seed": ["Seed", "Startwert"],
  "field.noise_seed": ["Seed", "Startwert"],
  "field.steps": ["Steps", "Schritte"],
  "field.cfg": ["Guidance", "Führung (CFG)"],
  "field.width": ["Width", "Breite"],
  "field.height": ["Height", "Höhe"],
  "field.batch_size": ["Pictures at once", "Bilder zugleich"],
  "field.sampler_name": ["Sampler", "Sampler"],
  "field.scheduler": ["Schedule", "Schrittfolge"],
  "field.denoise": ["Strength of change", "Stärke der Änderung"],
  "field.ckpt_name": ["Model", "Modell"],
  "field.filename_prefix": ["Name of the file", "Name der Datei"],
  "field.text": ["Text", "Text"],
};

/** @type {string} */
export const language = chosen();
const column = language === "de" ? 1 : 0;

/** The stored choice, else the browser's. */
function chosen() {
  let kept = null;
  try {
    kept = localStorage.getItem("sigmagraph.language");
  } catch {
    // a browser that keeps nothing
  }
  return kept && kept in languages ? kept : navigator.language.toLowerCase().startsWith("de") ? "de" : "en";
}

/** @param {string} name */
export function setLanguage(name) {
  try {
    localStorage.setItem("sigmagraph.language", name);
  } catch {
    // a browser that keeps nothing
  }
}

/**
 * The words of a key, with values in their places.
 * @param {string} key
 * @param {Record<string, string | number>} [values]
 */
export function t(key, values = {}) {
  return (known(key) ?? key).replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/**
 * The words of a key that may not be there.
 * @param {string} key
 */
export function known(key) {
  return Object.hasOwn(WORDS, key) ? WORDS[key][column] : undefined;
}
