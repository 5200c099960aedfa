// The agent's presence: one calm shape that breathes, and moves with the agent's voice.

const TURN = 2 * Math.PI;
const POINTS = 7;
const SMOOTHING = 0.18;

export class Presence {
  /** @param {() => {state: string, agent: number, user: number}} look levels are 0 to 1 */
  constructor(canvas, look) {
    this.canvas = canvas;
    this.look = look;
    this.agent = 0;
    this.user = 0;
    this.frame = null;
    this.still = window.matchMedia("(prefers-reduced-motion: reduce)");
  }

  start() {
    this.stop();
    const tick = (now) => {
      this.frame = requestAnimationFrame(tick);
      this.draw(now / 1000);
    };
    this.frame = requestAnimationFrame(tick);
  }

  stop() {
    if (this.frame !== null) cancelAnimationFrame(this.frame);
    this.frame = null;
  }

  draw(now) {
    const { canvas } = this;
    const box = canvas.getBoundingClientRect();
    const scale = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.round(box.width * scale);
    const height = Math.round(box.height * scale);
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });

    const seen = this.look();
    this.agent += (seen.agent - this.agent) * SMOOTHING;
    this.user += (seen.user - this.user) * SMOOTHING;
    const time = this.still.matches ? 0 : now;
    const pen = canvas.getContext("2d");
    const color = getComputedStyle(canvas).color;
    const unit = Math.min(width, height) / 2;
    const voice = seen.state === "speaking" ? this.agent : 0;
    const listening = seen.state === "listening" ? this.user : 0;
    const breath = 1 + 0.02 * Math.sin(time * 1.4);
    const radius = unit * (0.48 + 0.12 * voice) * breath;

    pen.clearRect(0, 0, width, height);
    pen.save();
    pen.translate(width / 2, height / 2);
    pen.fillStyle = color;
    for (const [grow, alpha, speed] of [[1.36, 0.1, 0.5], [1.18, 0.2, 0.7], [1, 0.95, 0.9]]) {
      pen.globalAlpha = alpha;
      blob(pen, radius * grow, time * speed, 0.03 + 0.06 * voice);
    }
    pen.globalAlpha = 0.7;
    pen.strokeStyle = color;
    pen.lineWidth = Math.max(1.5, unit * 0.007) * (1 + 2 * listening);
    ring(pen, unit * (0.74 + 0.06 * listening), seen.state, time);
    pen.restore();
  }
}

/** A closed curve through points that wander around a circle. */
function blob(pen, radius, time, wobble) {
  const at = (k) => {
    const far = radius * (1 + wobble * Math.sin(time * 2 + k * 2.4));
    const angle = (k / POINTS) * TURN + time * 0.15;
    return [far * Math.cos(angle), far * Math.sin(angle)];
  };
  const points = Array.from({ length: POINTS }, (_, k) => at(k));
  const middle = (a, b) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
  pen.beginPath();
  pen.moveTo(...middle(points[POINTS - 1], points[0]));
  points.forEach((point, k) =>
    pen.quadraticCurveTo(...point, ...middle(point, points[(k + 1) % POINTS])));
  pen.fill();
}

/** Whole while listening, three turning arcs while thinking, none while speaking. */
function ring(pen, radius, state, time) {
  if (state === "speaking") return;
  const pieces = state === "listening" ? [[0, TURN]]
    : [0, 1, 2].map((k) => [k * TURN / 3 + time, k * TURN / 3 + time + TURN / 7]);
  for (const [from, to] of pieces) {
    pen.beginPath();
    pen.arc(0, 0, radius, from, to);
    pen.stroke();
  }
}
