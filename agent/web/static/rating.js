// After the call: the one question, and the way to have the call forgotten.

import * as api from "./api.js";
import { $, press, say, show } from "./ui.js";

const REASONS = {
  hung_up: "",
  dropped: "The connection was lost and the call ended.",
  timed_out: "The call ended by itself: its time was up, or nobody had spoken for a while.",
  crashed: "Something failed on our side and the call ended. Sorry about that.",
};

export class Rating {
  /** @param {(how: "rated"|"skipped"|"deleted"|"late") => void} done */
  constructor(done) {
    this.done = done;
    this.session = null;
    $("rating").addEventListener("input", () => this.touch());
    press("rating-neutral", () => {
      $("rating").value = "50";
      this.touch();
    });
    press("rating-submit", () => this.submit());
    press("rating-skip", () => this.done("skipped"));
    press("delete", () => this.ask(true));
    press("delete-no", () => this.ask(false));
    press("delete-yes", () => this.remove());
    $("rating-form").addEventListener("submit", (event) => event.preventDefault());
  }

  open(session, question, how) {
    this.session = session;
    $("rating-form").reset();
    $("rating").value = "50";
    $("slider").dataset.touched = "false";
    $("rating").setAttribute("aria-valuetext", "not answered yet");
    $("rating-value").textContent = "Move the slider";
    $("rating-submit").disabled = true;
    say("rating-error", "");
    say("question", question);
    say("ended-reason", reasonOf(how));
    this.ask(false);
    show("rating");
  }

  /** Only a deliberate move is an answer: the slider's first position means nothing. */
  touch() {
    const value = $("rating").value;
    $("slider").dataset.touched = "true";
    $("rating-value").textContent = value;
    $("rating").setAttribute("aria-valuetext", `${value} of 100`);
    $("rating").style.setProperty("--share", `${value}%`);
    $("rating-submit").disabled = false;
    say("rating-error", "");
  }

  async submit() {
    const comment = $("comment").value.trim();
    try {
      await api.rate(this.session, {
        overall_affect: Number($("rating").value),
        comment: comment || null,
      });
    } catch (error) {
      if (error.status === 404 || error.status === 410) return this.done("late");
      say("rating-error", error.line);
      return;
    }
    this.done("rated");
  }

  ask(open) {
    $("delete-confirm").hidden = !open;
    $("delete").hidden = open;
    if (open) $("delete-no").focus();
  }

  async remove() {
    try {
      await api.forget(this.session);
    } catch (error) {
      if (error.status !== 404) {
        say("rating-error", error.line);
        this.ask(false);
        return;
      }
    }
    this.done("deleted");
  }
}

export const reasonOf = (how) => REASONS[how] ?? "";
