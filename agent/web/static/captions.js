// The conversation as it is spoken: one entry a turn, replaced while it grows.

const NAMES = { user: "You", agent: "geli" };

export class Captions {
  constructor({ box, list, empty, live, latest }) {
    Object.assign(this, { box, list, empty, live, latest });
    this.turns = new Map();
    this.follows = true;
    box.addEventListener("scroll", () => {
      this.follows = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
      if (this.follows) latest.hidden = true;
    });
    latest.addEventListener("click", () => this.toEnd());
  }

  /** @param {{speaker, turn, text, final, interrupted}} caption as the server sends it */
  put({ speaker, turn, text, final, interrupted = false }) {
    const key = `${speaker}:${turn}`;
    const known = this.turns.get(key);
    if (!text?.trim()) {
      // Nothing of it was heard after all.
      known?.item.remove();
      this.turns.delete(key);
      this.empty.hidden = this.turns.size > 0;
      return;
    }
    const entry = known ?? { speaker, turn, item: this.append(speaker) };
    const news = final && !(entry.final && entry.text === text);
    Object.assign(entry, { text, final: Boolean(final), interrupted: Boolean(interrupted) });
    this.turns.set(key, entry);
    render(entry);
    this.empty.hidden = true;
    if (news) this.announce(`${NAMES[speaker]}: ${text}`);
    if (this.follows) this.toEnd();
    else this.latest.hidden = false;
  }

  /** A line of the page itself, between the turns. */
  remark(text) {
    const item = document.createElement("li");
    item.className = "remark";
    item.textContent = text;
    this.list.append(item);
    this.empty.hidden = true;
    this.toEnd();
  }

  append(speaker) {
    const item = document.createElement("li");
    item.className = `turn ${speaker}`;
    const name = document.createElement("span");
    name.className = "speaker";
    name.textContent = NAMES[speaker];
    const words = document.createElement("p");
    words.className = "words";
    item.append(name, words);
    this.list.append(item);
    return item;
  }

  announce(line) {
    const p = document.createElement("p");
    p.textContent = line;
    this.live.append(p);
    while (this.live.children.length > 4) this.live.firstChild.remove();
  }

  toEnd() {
    this.follows = true;
    this.latest.hidden = true;
    this.box.scrollTop = this.box.scrollHeight;
  }

  clear() {
    this.turns.clear();
    this.list.replaceChildren();
    this.live.replaceChildren();
    this.latest.hidden = true;
    this.empty.hidden = false;
    this.follows = true;
  }

  snapshot() {
    return [...this.turns.values()].map(({ speaker, turn, text, final, interrupted }) =>
      ({ speaker, turn, text, final, interrupted }));
  }
}

function render({ item, speaker, turn, text, final, interrupted }) {
  item.dataset.turn = turn;
  item.dataset.speaker = speaker;
  item.dataset.final = String(final);
  item.dataset.interrupted = String(interrupted);
  item.dataset.testid = `caption-${speaker}-${turn}`;
  item.querySelector(".words").textContent = text;
  item.querySelector(".speaker").textContent =
    NAMES[speaker] + (interrupted ? " · interrupted" : "");
}
