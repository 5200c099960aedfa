// Microphone and camera: asking for them, naming what went wrong, measuring how loud it is.

const AUDIO = {
  echoCancellation: true,
  noiseSuppression: true,
  autoGainControl: true,
  channelCount: 1,
};

/** Why a call cannot be made from this page at all, or null. */
export function whyUnsupported() {
  if (!window.isSecureContext) {
    return {
      problem: "Browsers only open the microphone on a secure page.",
      wayOut: "Open this page by https:// or, on the machine it runs on, by http://localhost.",
    };
  }
  if (!navigator.mediaDevices?.getUserMedia || !window.RTCPeerConnection) {
    return {
      problem: "This browser cannot make video calls (WebRTC is missing or switched off).",
      wayOut: "Use a current Firefox, Chrome, Edge or Safari.",
    };
  }
  return null;
}

function videoConstraints(video, deviceId) {
  return {
    width: { ideal: video.width, max: 640 },
    height: { ideal: video.height, max: 480 },
    frameRate: { ideal: Math.min(video.frameRate, 15), max: 15 },
    ...(deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "user" }),
  };
}

export async function openMicrophone(deviceId) {
  const audio = deviceId ? { ...AUDIO, deviceId: { exact: deviceId } } : AUDIO;
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  return stream.getAudioTracks()[0];
}

export async function openCamera(video, deviceId) {
  const stream = await navigator.mediaDevices.getUserMedia({
    video: videoConstraints(video, deviceId),
  });
  return hinted(stream.getVideoTracks()[0]);
}

/**
 * Ask for both with one prompt; without a camera fall back to the microphone alone.
 * @returns {{audio: MediaStreamTrack, video: MediaStreamTrack|null, cameraError: string|null}}
 * @throws DOMException when there is no microphone to be had.
 */
export async function openBoth(video) {
  try {
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: AUDIO,
      video: videoConstraints(video, null),
    });
    return {
      audio: stream.getAudioTracks()[0],
      video: hinted(stream.getVideoTracks()[0]),
      cameraError: null,
    };
  } catch (error) {
    // One refusal fails the whole request, so the microphone is asked for again on its own.
    return { audio: await openMicrophone(null), video: null, cameraError: error.name };
  }
}

function hinted(track) {
  track.contentHint = "motion";
  return track;
}

export async function devices() {
  const all = await navigator.mediaDevices.enumerateDevices();
  return {
    microphones: all.filter((d) => d.kind === "audioinput"),
    cameras: all.filter((d) => d.kind === "videoinput"),
  };
}

export function microphoneTrouble(error) {
  switch (error.name) {
    case "NotAllowedError":
    case "SecurityError":
      return "The microphone is blocked. Allow it with the icon beside the page's address (on a phone: in the browser's site settings), then try again.";
    case "NotFoundError":
    case "OverconstrainedError":
      return "No microphone was found. Plug one in, or switch it on in the system settings, then try again.";
    case "NotReadableError":
    case "AbortError":
      return "The microphone is in use by another program or does not answer. Close the other program, then try again.";
    default:
      return `The microphone could not be opened (${error.name}). Try again.`;
  }
}

const UNSEEN = "The agent will hear you but not see how you react, so your reactions stay unknown.";

export function cameraTrouble(name) {
  switch (name) {
    case "chosen":
      return UNSEEN;
    case "NotAllowedError":
    case "SecurityError":
      return `The camera is blocked. ${UNSEEN}`;
    case "NotFoundError":
    case "OverconstrainedError":
      return `No camera was found. ${UNSEEN}`;
    default:
      return `The camera is in use elsewhere or does not answer. ${UNSEEN}`;
  }
}

/** Loudness of one audio stream, 0 (silence, -60 dBFS) to 1 (full scale). */
export class Level {
  constructor(context, stream) {
    this.source = context.createMediaStreamSource(stream);
    this.node = context.createAnalyser();
    this.node.fftSize = 1024;
    this.samples = new Float32Array(this.node.fftSize);
    this.source.connect(this.node);
  }

  value() {
    this.node.getFloatTimeDomainData(this.samples);
    let sum = 0;
    for (const x of this.samples) sum += x * x;
    const db = 10 * Math.log10(sum / this.samples.length + 1e-12);
    return Math.min(1, Math.max(0, (db + 60) / 60));
  }

  close() {
    this.source.disconnect();
  }
}
