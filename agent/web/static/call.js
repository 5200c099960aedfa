// One call over WebRTC: offer, data channel, heartbeat, and one way back after a network drop.
// It knows nothing of the page; everything it notices goes to `emit(name, detail)`:
//   "connection"  "connecting" | "connected" | "unsteady" | "reconnecting" | "lost"
//   "session"     {id, secret}: the server has taken the call
//   "message"     a message of the server on the data channel
//   "stream"      the agent's MediaStream
//   "gone"        the server no longer has this session running

import * as api from "./api.js";

const GATHER_MS = 2500;
const OPEN_MS = 12000;
const DISCONNECTED_GRACE_MS = 2000;
const RECOVER_MS = 20000;

export class Call {
  /**
   * @param {object} info answer of /api/info
   * @param {string} consent talk_only | keep | learn
   * @param {{audio: MediaStreamTrack, video: MediaStreamTrack|null}} media shared with the page,
   *   which may replace its tracks (see `replace`)
   */
  constructor(info, consent, media, emit) {
    this.info = info;
    this.consent = consent;
    this.media = media;
    this.emit = emit;
    this.session = null;
    this.over = false;
    this.recovering = false;
    this.pc = null;
    this.channel = null;
    this.timers = [];
  }

  /** @param {{id: string, secret: string}|null} resume @throws ApiError */
  async start(resume = null) {
    this.session = resume;
    this.emit("connection", "connecting");
    this.recovering = true; // a first connection that fails is an error, not a drop
    try {
      await this.connect();
    } catch (error) {
      this.closePeer();
      // The server may have opened a session that no media can reach: do not leave it waiting.
      if (!resume && this.session) api.hangup(this.session).catch(() => undefined);
      throw error;
    } finally {
      this.recovering = false;
    }
  }

  send(message) {
    if (this.channel?.readyState !== "open") return false;
    this.channel.send(JSON.stringify(message));
    return true;
  }

  setMuted(on) {
    // The track stays on the wire and sends silence: the server's clock counts its samples.
    this.media.audio.enabled = !on;
    this.send({ type: "mute", on });
  }

  /** Send another track of the same kind, or nothing in its place (camera off). */
  async replace(kind, track) {
    this.media[kind] = track;
    await this.sender(kind)?.replaceTrack(track);
    if (kind === "video") this.send({ type: "camera", on: track !== null });
  }

  sender(kind) {
    return this.pc?.getTransceivers().find((t) => t.receiver.track.kind === kind)?.sender;
  }

  hangUp() {
    this.send({ type: "hangup" });
    return this.session ? api.hangup(this.session).catch(() => undefined) : Promise.resolve();
  }

  close() {
    this.over = true;
    this.closePeer();
  }

  async connect() {
    await this.renewRelay();
    const pc = new RTCPeerConnection({
      iceServers: (this.info.ice_servers ?? []).map(withoutNulls),
      iceTransportPolicy: this.info.relay_only ? "relay" : "all",
    });
    this.closePeer();
    this.pc = pc;
    const current = () => this.pc === pc && !this.over;

    const stream = new MediaStream();
    pc.addTransceiver(this.media.audio, { direction: "sendrecv", streams: [stream] });
    // Always a place for video, so that a camera can be switched on later.
    const video = pc.addTransceiver(this.media.video ?? "video", { direction: "sendonly" });
    const channel = pc.createDataChannel("geli", { ordered: true });
    this.channel = channel;
    const opened = opens(channel, pc);

    pc.ontrack = (event) =>
      current() && this.emit("stream", event.streams[0] ?? new MediaStream([event.track]));
    channel.onmessage = (event) => current() && this.receive(event.data);
    channel.onclose = () => current() && this.recover();
    pc.oniceconnectionstatechange = () => current() && this.watchIce(pc);

    await pc.setLocalDescription();
    await gathered(pc);
    if (this.info.relay_only && !pc.localDescription.sdp.includes("a=candidate")) {
      throw new api.ApiError(0, "The relay for this call cannot be reached",
        "check that your network allows TURN, or ask who runs the server");
    }
    const answer = await api.offer({
      sdp: pc.localDescription.sdp,
      type: "offer",
      consent: this.consent,
      camera: this.media.video !== null,
      resume: this.session && { session_id: this.session.id, secret: this.session.secret },
    });
    this.session = { id: answer.session_id, secret: answer.secret };
    if (this.over) {
      pc.close();
      api.hangup(this.session).catch(() => undefined);
      return;
    }
    this.emit("session", this.session);
    await pc.setRemoteDescription({ type: "answer", sdp: answer.sdp });
    await modest(video.sender, this.info.video);
    await opened;
    this.beat();
    this.send({ type: "mute", on: !this.media.audio.enabled });
    this.send({ type: "camera", on: this.media.video !== null });
    this.emit("connection", "connected");
  }

  /** The relay's credentials end: before half of their time is over, fresh ones are fetched. */
  async renewRelay() {
    const { ice_ttl_s: ttl, at } = this.info;
    if (ttl && Date.now() - at > ttl * 500) Object.assign(this.info, await api.info());
  }

  receive(data) {
    this.heardAt = performance.now();
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return; // not ours: a newer server may speak more than this page knows
    }
    if (message.type !== "pong") this.emit("message", message);
    else this.roundTripMs = performance.now() - message.t;
  }

  beat() {
    this.heardAt = performance.now();
    const timer = setInterval(() => {
      this.send({ type: "ping", t: performance.now() });
      if (performance.now() - this.heardAt > this.info.vanished_after_ms) this.recover();
    }, this.info.heartbeat_ms);
    this.timers.push(timer);
  }

  watchIce(pc) {
    if (this.recovering) return;
    const state = pc.iceConnectionState;
    if (state === "failed") this.recover();
    if (state === "disconnected") {
      this.emit("connection", "unsteady");
      setTimeout(() => {
        if (this.pc === pc && pc.iceConnectionState === "disconnected") this.recover();
      }, DISCONNECTED_GRACE_MS);
    }
    if (["connected", "completed"].includes(state) && this.channel?.readyState === "open") {
      this.emit("connection", "connected");
    }
  }

  /** One way back per drop: keep asking for the same session until it answers or time is up. */
  async recover() {
    if (this.over || this.recovering || !this.session) return;
    this.recovering = true;
    this.emit("connection", "reconnecting");
    const until = performance.now() + Math.min(RECOVER_MS, this.info.resume_s * 1000);
    try {
      for (let wait = 500; !this.over; wait = Math.min(wait * 2, 4000)) {
        try {
          await this.connect();
          return;
        } catch (error) {
          this.closePeer();
          if (this.over) return;
          if (error.status === 410 || error.status === 404) return void this.emit("gone");
          if (performance.now() + wait > until) return void this.emit("connection", "lost");
        }
        await new Promise((resolve) => setTimeout(resolve, wait));
      }
    } finally {
      this.recovering = false;
    }
  }

  closePeer() {
    this.timers.splice(0).forEach(clearInterval);
    const { pc } = this;
    this.pc = null;
    this.channel = null;
    pc?.close();
  }
}

function withoutNulls(server) {
  return Object.fromEntries(Object.entries(server).filter(([, value]) => value != null));
}

function gathered(pc) {
  return new Promise((resolve) => {
    const done = () => pc.iceGatheringState === "complete" && resolve();
    pc.onicegatheringstatechange = done;
    setTimeout(resolve, GATHER_MS);
    done();
  });
}

function opens(channel, pc) {
  const opened = new Promise((resolve, reject) => {
    const fail = () =>
      reject(new api.ApiError(0, "Sound and picture cannot reach the server",
        "another network or a switched-off VPN often helps"));
    channel.addEventListener("open", () => {
      clearTimeout(timer);
      resolve();
    });
    pc.addEventListener("connectionstatechange", () => {
      if (["failed", "closed"].includes(pc.connectionState)) fail();
    });
    const timer = setTimeout(fail, OPEN_MS);
  });
  opened.catch(() => undefined); // awaited later; the offer itself may fail before that
  return opened;
}

/** Send no more frames than are looked at; the picture beside the call stays as it is. */
async function modest(sender, { frameRate, sendRate = frameRate }) {
  const parameters = sender.getParameters();
  for (const encoding of parameters.encodings ?? []) {
    encoding.maxBitrate = Math.round((400_000 * sendRate) / 15);
    encoding.maxFramerate = sendRate;
  }
  await sender.setParameters(parameters).catch(() => undefined); // a wish, not a need
}
