// The server's HTTP side. Every failure becomes an ApiError with one line and a way out.

export class ApiError extends Error {
  /** @param {number} status HTTP status; 0 when the server could not be reached. */
  constructor(status, message, wayOut = "") {
    super(message);
    this.status = status;
    this.wayOut = wayOut;
  }

  get line() {
    return this.wayOut ? `${this.message}. ${capital(this.wayOut)}.` : `${this.message}.`;
  }
}

/** Whether the call may still be there: the way to it is broken, not the call. */
export const mayReturn = (error) => error.status === 0 || error.status === 503;

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const plain = (text) => capital(String(text ?? "").trim().replace(/\.$/, ""));

async function request(method, path, { body, secret, keepalive = false, timeoutMs = 15000 } = {}) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (secret) headers["X-Session-Secret"] = secret;
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      keepalive,
      credentials: "same-origin",
      cache: "no-store",
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(timeoutMs),
    });
  } catch {
    throw new ApiError(0, "The server does not answer", "check your connection and try again");
  }
  if (response.status === 204) return null;
  const answer = await response.json().catch(() => null);
  if (response.ok) return answer;
  throw new ApiError(
    response.status,
    plain(answer?.error) || `The server refused (${response.status})`,
    plain(answer?.way_out),
  );
}

const path = (id) => `/api/sessions/${encodeURIComponent(id)}`;

export const info = async () => ({ ...(await request("GET", "/api/info")), at: Date.now() });
export const token = (value) => request("POST", "/api/token", { body: { token: value } });
export const offer = (body) => request("POST", "/api/offer", { body });
export const session = ({ id, secret }) => request("GET", path(id), { secret });
export const rate = ({ id, secret }, body) =>
  request("POST", `${path(id)}/rating`, { secret, body });
export const hangup = ({ id, secret }) =>
  request("POST", `${path(id)}/hangup`, { secret, keepalive: true, timeoutMs: 5000 });
export const forget = ({ id, secret }) => request("DELETE", path(id), { secret });

/** Tell the server that the page goes away; survives the page itself. */
export function away({ id, secret }) {
  navigator.sendBeacon(`${path(id)}/away`, JSON.stringify({ secret }));
}
