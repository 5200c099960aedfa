// Before the call: what may be kept, then microphone and camera.

import {
  Level, cameraTrouble, devices, microphoneTrouble, openBoth, openCamera, openMicrophone,
} from "./media.js";
import { $, press, say, show } from "./ui.js";

const NONE = "none";

export class Setup {
  /** @param {(consent, media) => Promise<void>} begin starts the call with open tracks */
  constructor(begin) {
    this.begin = begin;
    this.media = null;
    this.wantsCamera = true;
    this.attempt = 0;
    $("consent-form").addEventListener("submit", (event) => event.preventDefault());
    $("consent-form").addEventListener("change", () => say("consent-error", ""));
    press("check", () => this.check(true));
    press("check-audio", () => this.check(false));
    press("devices-retry", () => this.open());
    press("devices-back", () => this.back());
    press("start", () => this.start());
    $("mic").addEventListener("change", () => this.pickMicrophone());
    $("camera").addEventListener("change", () => this.pickCamera());
    navigator.mediaDevices?.addEventListener("devicechange", () => {
      if (this.media) this.list();
    });
  }

  get consent() {
    return document.querySelector('input[name="consent"]:checked')?.value ?? null;
  }

  welcome(info) {
    this.info = info;
    const facts = [`Policy ${info.policy}`];
    if (info.classifier) facts.push(`reads faces with ${info.classifier}`);
    if (info.own_token) facts.push("calls that you let us keep are marked with your token");
    facts.push(`geli ${info.version}`, `profile ${info.profile}`);
    say("about", facts.join(" · "));
    say("classifier-note", info.classifier ? "" :
      "This server does not read faces; a camera would only show you to yourself.");
    show("welcome");
  }

  async check(wantsCamera) {
    if (!this.consent) {
      say("consent-error", "Choose one of the three first.");
      $("consent-talk_only").focus();
      return;
    }
    this.wantsCamera = wantsCamera;
    // Made by this press, so that the browser lets it run.
    this.context ??= new AudioContext();
    this.context.resume();
    show("devices");
    await this.open();
  }

  /** Open the devices; on failure say what to do and offer to try again. */
  async open() {
    this.fail("");
    $("start").hidden = true;
    say("level-text", "Waiting for your permission");
    const attempt = ++this.attempt;
    let opened;
    try {
      opened = this.wantsCamera
        ? await openBoth(this.info.video)
        : { audio: await openMicrophone(null), video: null, cameraError: "chosen" };
    } catch (error) {
      if (attempt !== this.attempt) return;
      this.fail(microphoneTrouble(error));
      say("level-text", "No microphone");
      await this.list();
      return;
    }
    if (attempt !== this.attempt) {
      // The person went back while the browser was still asking.
      opened.audio.stop();
      opened.video?.stop();
      return;
    }
    this.media = { audio: opened.audio, video: opened.video };
    $("start").hidden = false;
    this.cameraNote(opened.cameraError);
    this.hear();
    this.see();
    await this.list();
    $("start").focus({ preventScroll: true });
  }

  fail(text) {
    say("devices-error", text);
    $("devices-retry").hidden = !text;
    $("devices-box").hidden = Boolean(text);
  }

  /** A refusal of the server: the devices stay open, the call can be tried again. */
  refused(text) {
    show("devices");
    this.hear();
    this.see();
    say("devices-error", text);
  }

  async list() {
    const { microphones, cameras } = await devices();
    const mic = this.media?.audio.getSettings().deviceId;
    const camera = this.media?.video?.getSettings().deviceId ?? NONE;
    options($("mic"), microphones.map((d, i) => [d.deviceId, d.label || `Microphone ${i + 1}`]), mic);
    options($("camera"), [
      ...cameras.map((d, i) => [d.deviceId, d.label || `Camera ${i + 1}`]),
      [NONE, "No camera"],
    ], camera);
    $("mic").disabled = !this.media;
    $("camera").disabled = !this.media;
  }

  async pickMicrophone() {
    const old = this.media.audio;
    try {
      this.media.audio = await openMicrophone($("mic").value);
      old.stop();
      say("devices-error", "");
    } catch (error) {
      say("devices-error", microphoneTrouble(error));
    }
    this.hear();
    await this.list();
  }

  async pickCamera() {
    const wish = $("camera").value;
    this.media.video?.stop(); // a phone opens one camera at a time
    this.media.video = null;
    this.cameraNote(wish === NONE ? "chosen" : null);
    if (wish !== NONE) {
      try {
        this.media.video = await openCamera(this.info.video, wish);
      } catch (error) {
        this.cameraNote(error.name);
      }
    }
    this.see();
    await this.list();
  }

  cameraNote(name) {
    say("camera-note", name ? cameraTrouble(name) : "");
  }

  hear() {
    this.quiet();
    this.level = new Level(this.context, new MediaStream([this.media.audio]));
    let heard = false;
    this.meter = setInterval(() => {
      const value = this.level.value();
      $("level-bar").style.transform = `scaleX(${value.toFixed(3)})`;
      $("level").setAttribute("aria-valuenow", String(Math.round(value * 100)));
      heard ||= value > 0.35;
      const text = heard ? "We can hear you" : "Say something";
      if ($("level-text").textContent !== text) say("level-text", text);
    }, 60);
  }

  see() {
    const { video } = this.media;
    $("preview").srcObject = video ? new MediaStream([video]) : null;
    $("preview").hidden = !video;
    $("preview-empty").hidden = Boolean(video);
  }

  quiet() {
    clearInterval(this.meter);
    this.level?.close();
    this.level = null;
    $("level-bar").style.transform = "scaleX(0)";
  }

  back() {
    this.release();
    show("welcome");
  }

  async start() {
    say("devices-error", "");
    this.quiet();
    $("preview").srcObject = null;
    await this.begin(this.consent, this.media);
  }

  /** Take up a call after a reload: the same choices, no second look at the devices. */
  async again(info, { camera, muted }) {
    this.info = info;
    this.context ??= new AudioContext();
    this.context.resume();
    const opened = camera ? await openBoth(info.video)
      : { audio: await openMicrophone(null), video: null };
    opened.audio.enabled = !muted;
    this.media = { audio: opened.audio, video: opened.video };
    return this.media;
  }

  /** Stop every track: the lights of camera and microphone go out. */
  release() {
    this.attempt += 1;
    this.quiet();
    this.media?.audio.stop();
    this.media?.video?.stop();
    this.media = null;
    $("preview").srcObject = null;
    this.cameraNote(null);
    this.fail("");
  }
}

function options(select, pairs, chosen) {
  select.replaceChildren(...pairs.map(([value, label]) => new Option(label, value)));
  const picked = pairs.some(([value]) => value === chosen) ? chosen : pairs[0]?.[0];
  if (picked !== undefined) select.value = picked;
}
