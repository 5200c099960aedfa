// What survives a reload: the ids of the running call, in this tab only. Never what was said.

const KEY = "geli.session";
const tabs = "BroadcastChannel" in window ? new BroadcastChannel("geli") : null;

/** @param {{id: string, secret: string, consent: string, camera: boolean, muted?: boolean, startedAt: number}} it */
export function save(it) {
  sessionStorage.setItem(KEY, JSON.stringify(it));
}

export function saved() {
  try {
    const it = JSON.parse(sessionStorage.getItem(KEY));
    return it?.id && it?.secret ? it : null;
  } catch {
    return null;
  }
}

export function clear() {
  sessionStorage.removeItem(KEY);
}

/** A duplicated tab inherits the session: whoever takes it up last keeps it. */
export function announceTaken(id) {
  tabs?.postMessage({ taken: id });
}

export function onTakenElsewhere(callback) {
  tabs?.addEventListener("message", (event) => callback(event.data?.taken));
}
