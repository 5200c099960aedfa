// The page from the first look to "new call": which screen follows which.

import * as api from "./api.js";
import { Call } from "./call.js";
import { CallView } from "./callview.js";
import { microphoneTrouble, whyUnsupported } from "./media.js";
import { Rating, reasonOf } from "./rating.js";
import * as store from "./session.js";
import { Setup } from "./setup.js";
import { $, press, say, screen, show } from "./ui.js";

const ENDED_WAIT_MS = 1500;

const THANKS = {
  rated: ["Thank you", "Your answer is saved with the call."],
  skipped: ["Thank you for the conversation", "No rating was saved."],
  deleted: ["The call is deleted", "Everything that was kept from it is gone."],
  late: ["Thank you", "This call can no longer be rated."],
  talk_only: ["Goodbye", "Thank you for the conversation. Nothing of it was kept."],
  over: ["The call is over", "Thank you for the conversation."],
  moved: ["The call moved", "It goes on in another tab of this browser."],
};

let info = null;
let call = null;
let running = null; // {id, secret, consent, camera, startedAt}: the session of this page
let endedHow = null;
let endedMessage = () => undefined;

const setup = new Setup((consent, media) => begin(consent, media, null));
const view = new CallView({ hangUp, retry: () => call?.recover(), changed: remember });
const rating = new Rating(farewell);

async function boot() {
  const trouble = whyUnsupported();
  if (trouble) return problem(trouble.problem, trouble.wayOut, false);
  show("loading");
  try {
    info = await api.info();
  } catch (error) {
    if (error.status === 401) return show("token");
    return problem(`${error.message}.`, error.wayOut && `${error.wayOut}.`);
  }
  const url = new URL(location.href);
  if (url.searchParams.has("token")) {
    url.searchParams.delete("token"); // the cookie has it now; keep it out of the history
    history.replaceState(null, "", url);
  }
  await takeUp();
}

/** A call that this tab had before a reload: return to it, rate it, or start afresh. */
async function takeUp() {
  const before = store.saved();
  if (!before) return setup.welcome(info);
  running = before;
  let status;
  try {
    status = await api.session(before);
  } catch (error) {
    if (error.status === 401) return show("token");
    if (api.mayReturn(error)) return problem(`${error.message}.`, `${error.wayOut}.`);
    store.clear();
    running = null;
    return setup.welcome(info);
  }
  if (status.state !== "ended") return show("resume");
  if (status.rated || !status.can_rate) {
    store.clear();
    running = null;
    return setup.welcome(info);
  }
  afterwards(status.ended_how, true);
}

async function begin(consent, media, resume) {
  endedHow = null;
  const startedAt = resume?.startedAt ?? Date.now();
  const mine = new Call(info, consent, media, (name, detail) => {
    if (call === mine) heard(name, detail);
  });
  call = mine;
  running = resume ?? { consent, camera: media.video !== null, startedAt };
  show("call");
  view.begin(call, info, setup.context, startedAt);
  if (resume) view.captions.remark("You are back. Earlier captions are not shown.");
  try {
    await mine.start(resume && { id: resume.id, secret: resume.secret });
  } catch (error) {
    if (call === mine) await refusedBy(error, resume);
  }
}

async function refusedBy(error, resume) {
  leave();
  const over = error.status === 410 || (resume && error.status === 404);
  if (over) return conclude(null);
  const line = error.line ?? "The call could not be set up. Try again, or use another browser.";
  if (error.status === 401) {
    setup.release();
    return show("token");
  }
  if (resume) {
    setup.release();
    show("resume");
    return say("resume-error", line);
  }
  running = null;
  store.clear();
  setup.refused(line);
}

function heard(name, detail) {
  if (name === "connection") view.setConnection(detail);
  if (name === "stream") view.stream(detail);
  if (name === "session") {
    running = { ...running, ...detail };
    store.save(running);
    store.announceTaken(detail.id);
  }
  if (name === "gone") conclude(null);
  if (name === "message") {
    if (detail.type === "ended") {
      endedMessage(detail);
      conclude(detail);
    } else {
      view.message(detail);
    }
  }
}

/** A person who muted or hid stays so over a reload. */
function remember() {
  running = { ...running, muted: view.muted, camera: call.media.video !== null };
  if (running.id) store.save(running);
}

/** Close the connection and the call screen; the session's ids stay. */
function leave() {
  call?.close();
  call = null;
  view.end();
}

async function hangUp() {
  const mine = call;
  if (!mine || view.connection === "ending") return;
  view.setConnection("ending");
  mine.media.audio.enabled = false;
  const ended = new Promise((resolve) => {
    endedMessage = resolve;
    setTimeout(resolve, ENDED_WAIT_MS);
  });
  await mine.hangUp();
  await ended;
  if (call === mine) await conclude(null);
}

/** The call is over: with the server's word for it, or by asking. */
async function conclude(ended) {
  leave();
  setup.release();
  if (!running?.id) return farewell("over");
  let how = ended?.how ?? null;
  let canRate = ended?.can_rate ?? null;
  if (canRate === null) {
    try {
      const status = await api.session(running);
      how = status.ended_how;
      canRate = status.can_rate && !status.rated;
    } catch (error) {
      canRate = api.mayReturn(error); // keep the form, sending can be tried again
    }
  }
  afterwards(how, canRate);
}

function afterwards(how, canRate) {
  endedHow = how;
  if (running.consent === "talk_only") return farewell("talk_only");
  if (!canRate) return farewell("over");
  store.save(running);
  rating.open(running, info.question, how);
}

function farewell(kind) {
  store.clear();
  const [title, text] = THANKS[kind];
  const reason = ["talk_only", "over"].includes(kind) ? reasonOf(endedHow) : "";
  $("thanks-title").textContent = title;
  say("thanks-text", [reason, text].filter(Boolean).join(" "));
  show("thanks");
}

async function returnToCall() {
  say("resume-error", "");
  let media;
  try {
    media = await setup.again(info, running);
  } catch (error) {
    return say("resume-error", microphoneTrouble(error));
  }
  await begin(running.consent, media, running);
}

async function endFromReload() {
  await api.hangup(running).catch(() => undefined);
  await conclude(null);
}

async function enterToken() {
  const value = $("token").value.trim();
  if (!value) return say("token-error", "Enter the token first.");
  try {
    await api.token(value);
  } catch (error) {
    const wrong = error.status === 401 || error.status === 403;
    say("token-error", wrong ? "That token is not right. Check it and try again." : error.line);
    return $("token").select();
  }
  $("token").value = "";
  say("token-error", "");
  await boot();
}

function problem(text, wayOut, canRetry = true) {
  show("problem");
  say("problem-text", text);
  say("problem-way-out", wayOut ?? "");
  $("problem-retry").hidden = !canRetry;
}

press("problem-retry", boot);
press("token-submit", enterToken);
press("resume-return", returnToCall);
press("resume-end", endFromReload);
press("new-call", async () => {
  running = null;
  await boot();
});
$("token-form").addEventListener("submit", (event) => event.preventDefault());

window.addEventListener("pagehide", () => {
  if (call && running?.id) api.away(running);
});
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload(); // back from the cache: its connections are dead
});
store.onTakenElsewhere((id) => {
  if (!call || running?.id !== id) return;
  leave();
  setup.release();
  farewell("moved");
});

/** Read-only, for tests and the console. */
Object.defineProperty(window, "geli", {
  value: Object.freeze({
    get screen() { return screen(); },
    get state() { return call ? view.shown : "idle"; },
    get connection() { return call ? view.connection : "idle"; },
    get sessionId() { return running?.id ?? null; },
    get consent() { return running?.consent ?? setup.consent; },
    get captions() { return view.captions.snapshot(); },
    get muted() { return Boolean(call && view.muted); },
    get cameraOn() { return Boolean(call?.media.video); },
    get faceFound() { return view.faceFound ?? null; },
    get agentLevel() { return view.agentLevel?.value() ?? 0; },
    get userLevel() { return view.userLevel?.value() ?? 0; },
    get roundTripMs() { return call?.roundTripMs ?? null; },
    get endedHow() { return endedHow; },
  }),
});

await boot();
