// The call as a person sees it: state, presence, captions, self view, controls.

import { Captions } from "./captions.js";
import { Level, microphoneTrouble, cameraTrouble, openCamera, openMicrophone } from "./media.js";
import { Presence } from "./presence.js";
import { $, clock, icon, press, say, screen } from "./ui.js";

const STATES = {
  connecting: ["Connecting", "waiting"],
  listening: ["Listening", "listening"],
  thinking: ["Thinking", "thinking"],
  speaking: ["Speaking", "speaking"],
  unsteady: ["Unsteady connection", "waiting"],
  reconnecting: ["Reconnecting", "waiting"],
  lost: ["Connection lost", "broken"],
  ending: ["Hanging up", "waiting"],
};
const ESCAPE_AGAIN_MS = 2000;
const NOTICE_MS = 7000;
const FACE_GRACE_MS = 1500;

export class CallView {
  /** @param {{hangUp, retry, changed}} actions what the view asks of the page */
  constructor(actions) {
    this.actions = actions;
    this.call = null;
    this.captions = new Captions({
      box: $("captions-box"), list: $("captions"), empty: $("captions-empty"),
      live: $("captions-live"), latest: $("latest"),
    });
    this.presence = new Presence($("presence"), () => ({
      state: this.shown,
      agent: this.agentLevel?.value() ?? 0,
      user: this.muted ? 0 : (this.userLevel?.value() ?? 0),
    }));
    press("mute", () => this.toggleMute());
    press("camera-toggle", () => this.toggleCamera());
    press("hangup", () => actions.hangUp());
    press("lost-retry", () => actions.retry());
    press("lost-end", () => actions.hangUp());
    press("unblock-audio", () => this.play());
    document.addEventListener("keydown", (event) => this.key(event));
  }

  begin(call, info, context, startedAt) {
    Object.assign(this, {
      call, info, context, muted: !call.media.audio.enabled, turn: "listening", connection: "connecting",
      faceFound: null, agentLevel: null, escapedAt: -Infinity,
    });
    this.captions.clear();
    for (const id of ["notice", "face-hint"]) say(id, "");
    $("unblock-audio").hidden = true;
    this.userLevel = new Level(context, new MediaStream([call.media.audio]));
    this.watchMicrophone(call.media.audio);
    this.setConnection("connecting");
    this.showMute();
    this.showCamera();
    this.presence.start();
    const tick = () => {
      const seconds = (Date.now() - startedAt) / 1000;
      if ($("elapsed").textContent !== clock(seconds)) $("elapsed").textContent = clock(seconds);
    };
    tick();
    this.ticker = setInterval(tick, 250);
  }

  end() {
    clearInterval(this.ticker);
    clearTimeout(this.noticeTimer);
    clearTimeout(this.faceTimer);
    this.presence.stop();
    this.userLevel?.close();
    this.agentLevel?.close();
    this.userLevel = this.agentLevel = null;
    $("agent-audio").srcObject = null;
    $("self-view").srcObject = null;
    $("lost").hidden = true;
    this.call = null;
  }

  message(message) {
    if (message.type === "state" && message.state in STATES) {
      this.turn = message.state;
      this.showState();
    } else if (message.type === "caption") {
      this.captions.put(message);
    } else if (message.type === "face") {
      this.face(message.found);
    } else if (message.type === "notice") {
      this.notice(message.text, message.level);
    }
  }

  stream(stream) {
    const audio = $("agent-audio");
    audio.srcObject = stream;
    this.agentLevel?.close();
    this.agentLevel = new Level(this.context, stream);
    this.play();
  }

  async play() {
    try {
      await Promise.all([$("agent-audio").play(), this.context.resume()]);
      $("unblock-audio").hidden = true;
    } catch (error) {
      // AbortError: a newer stream took its place while this one was starting.
      if (error.name === "NotAllowedError") $("unblock-audio").hidden = false;
    }
  }

  setConnection(connection) {
    this.connection = connection;
    $("lost").hidden = connection !== "lost";
    if (connection === "lost") $("lost-retry").focus();
    if (connection === "reconnecting") this.captions.remark("Connection dropped, reconnecting");
    this.showState();
  }

  showState() {
    this.shown = this.connection === "connected" ? this.turn : this.connection;
    const [text, shape] = STATES[this.shown];
    $("state").dataset.state = this.shown;
    $("state-text").textContent = text;
    icon("state-icon", shape);
    $("presence").setAttribute("aria-label", `The agent: ${text.toLowerCase()}`);
  }

  notice(text, level = "info", keep = false) {
    say("notice", text);
    $("notice").dataset.level = level;
    clearTimeout(this.noticeTimer);
    if (!keep) this.noticeTimer = setTimeout(() => say("notice", ""), NOTICE_MS);
  }

  face(found) {
    this.faceFound = found;
    clearTimeout(this.faceTimer);
    if (found || !this.call?.media.video) {
      say("face-hint", "");
      return;
    }
    this.faceTimer = setTimeout(() => {
      if (this.call?.media.video) {
        say("face-hint", "The agent cannot see your face.");
      }
    }, FACE_GRACE_MS);
  }

  toggleMute() {
    this.muted = !this.muted;
    this.call.setMuted(this.muted);
    this.showMute();
    this.actions.changed();
  }

  showMute() {
    $("mute").setAttribute("aria-pressed", String(this.muted));
    $("mute-text").textContent = this.muted ? "Unmute" : "Mute";
    icon("mute-icon", this.muted ? "mic-off" : "mic");
    $("self-muted").hidden = !this.muted;
  }

  async toggleCamera() {
    const { call } = this;
    const old = call.media.video;
    if (old) {
      const replaced = call.replace("video", null);
      this.actions.changed(); // at once: a reload must not bring the camera back
      old.stop(); // not just black: the camera's light goes out
      await replaced;
      this.face(true);
      this.faceFound = null;
    } else {
      try {
        const track = await openCamera(this.info.video, null);
        if (this.call !== call) return track.stop();
        await call.replace("video", track);
      } catch (error) {
        this.notice(cameraTrouble(error.name), "warn");
      }
    }
    if (this.call !== call) return; // the call ended meanwhile
    this.showCamera();
    this.actions.changed();
  }

  showCamera() {
    const { video } = this.call.media;
    $("camera-toggle").setAttribute("aria-pressed", String(!video));
    $("camera-text").textContent = video ? "Camera off" : "Camera on";
    icon("camera-icon", video ? "cam" : "cam-off");
    $("self-view").srcObject = video ? new MediaStream([video]) : null;
    $("self-view").hidden = !video;
    $("self-off").hidden = Boolean(video);
  }

  /** A microphone that is unplugged in mid-call is replaced by the next one. */
  watchMicrophone(track) {
    track.addEventListener("ended", async () => {
      const { call } = this;
      if (!call || call.media.audio !== track) return;
      try {
        const next = await openMicrophone(null);
        if (this.call !== call) return next.stop();
        next.enabled = !this.muted;
        await call.replace("audio", next);
        this.userLevel?.close();
        this.userLevel = new Level(this.context, new MediaStream([next]));
        this.watchMicrophone(next);
        this.notice(`Your microphone went away. Now using ${next.label || "another one"}.`, "warn");
      } catch (error) {
        this.notice(microphoneTrouble(error), "warn", true);
      }
    });
  }

  key(event) {
    const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (screen() !== "call" || !this.call || typing || event.repeat) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const name = event.key.toLowerCase();
    if (name === "m") $("mute").click();
    else if (name === "v") $("camera-toggle").click();
    else if (name === "escape") this.escape();
  }

  escape() {
    if (performance.now() - this.escapedAt < ESCAPE_AGAIN_MS) {
      this.actions.hangUp();
      return;
    }
    this.escapedAt = performance.now();
    this.notice("Press Esc again to hang up.");
  }
}
