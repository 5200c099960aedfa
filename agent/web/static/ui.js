// Small helpers of the page: finding elements, saying things, changing screens.

export const $ = (id) => document.getElementById(id);

/** A press by mouse, touch or keyboard. */
export function press(id, action) {
  $(id).addEventListener("click", () => action());
}

/** Put a text where it belongs; an empty place is not shown. */
export function say(id, text) {
  const element = $(id);
  element.textContent = text;
  element.hidden = !text;
}

const screens = () => [...document.querySelectorAll("[data-screen]")];

/** The name of the screen that is shown. */
export function screen() {
  return screens().find((section) => !section.hidden)?.dataset.screen ?? null;
}

/** Change to a screen; its heading takes the focus, so that a screen reader says where we are. */
export function show(name) {
  if (screen() === name) return;
  for (const section of screens()) section.hidden = section.dataset.screen !== name;
  window.scrollTo(0, 0);
  $(`screen-${name}`).querySelector("h1").focus({ preventScroll: true });
}

/** Show another symbol of index.html. */
export function icon(id, name) {
  $(id).setAttribute("href", `#i-${name}`);
}

/** Minutes and seconds, e.g. 1:05. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
