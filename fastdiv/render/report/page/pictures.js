// Pictures: drawn by plotly once they come near the window, and again when the choice changes.

const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif';
const NEAR = "500px";
const HEIGHT = 360;
const PRINT_WIDTH = 680;
const PRINT_HEIGHT = 0.8; // of a picture that is higher than LOW: two go on a page
const LOW = 300;
const NARROW = 480;
const BASE = {
  paper_bgcolor: "rgba(0,0,0,0)",
  plot_bgcolor: "rgba(0,0,0,0)",
  font: { family: FONT, size: 13 },
  hoverlabel: { font: { family: FONT, size: 13 }, align: "left" },
  autosize: true,
};
// Only what works here: some of plotly's buttons would send the picture to its makers.
const BUTTONS = ["toImage", "zoom2d", "pan2d", "resetScale2d"];
const CONFIG = { displaylogo: false, responsive: true, displayModeBar: "hover", plotlyServerURL: "" };
const MARGIN = { l: 16, r: 16, t: 24, b: 16 };

const pictures = new Set();
const waiting = [];
let watcher = null;

// Return a figure for a picture. `adapt` may change its layout before it is drawn; where `brief`,
// how to read it comes last.
function pictureFigure(content, level, adapt, brief) {
  const plot = el("div", { class: "plot" });
  const seen = el("p", { class: "seen" });
  const which = el("p", { class: "which", hidden: true });
  const node = el("figure", { class: "picture", id: freshId(content.name) },
    content.title ? el(level, {}, content.title) : null,
    content.how && !brief ? el("p", { class: "how" }, content.how) : null,
    plot,
    el("figcaption", {}, which, seen, content.how && brief ? el("p", { class: "note" }, content.how) : null, content.note ? el("p", { class: "note" }, content.note) : null));
  const picture = { content, plot, node, seen, which, adapt, near: false, stale: true, drawn: false };
  pictures.add(picture);
  watch(picture);
  caption(picture);
  return picture;
}

function watch(picture) {
  if (!watcher) {
    watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const found = entry.target.picture;
        found.near = entry.isIntersecting;
        if (found.near && found.stale) queue(found);
      }
    }, { rootMargin: NEAR });
  }
  picture.plot.picture = picture;
  watcher.observe(picture.plot);
}

function forget(picture) {
  watcher.unobserve(picture.plot);
  pictures.delete(picture);
  if (picture.drawn) window.Plotly.purge(picture.plot);
}

// The key of the frame to show, null where there is none for the choice.
function frameKey(content) {
  if (!content.by) return null;
  if (content.by === "pair") return content.frames[choice.pair] ? choice.pair : null;
  const epochs = Object.keys(content.frames).map(Number);
  const nearest = nearestEpoch(epochs, choice.epoch);
  return nearest === null ? null : String(nearest);
}

// Traces and layout for a frame: its attributes replace those of the picture.
function chosen(content, key) {
  const frame = key === null ? null : content.frames[key];
  const data = content.data.map((trace, i) => ({ ...trace, ...((frame && frame.data[i]) || {}) }));
  const layout = structuredClone(content.layout);
  for (const [path, value] of Object.entries((frame && frame.layout) || {})) {
    const steps = path.split(".");
    const last = steps.pop();
    let inner = layout;
    for (const step of steps) inner = inner[step] = inner[step] || {};
    inner[last] = value;
  }
  return { data, layout };
}

function caption(picture) {
  const { content } = picture;
  const key = frameKey(content);
  const missing = content.by !== null && key === null;
  const text = key === null ? content.text : content.frames[key].text;
  picture.seen.textContent = missing ? "" : said(text);
  picture.plot.hidden = missing;
  const { layout } = chosen({ layout: { height: content.layout.height }, data: [], frames: content.frames }, key);
  picture.plot.style.height = `${layout.height || HEIGHT}px`;
  let which = "";
  if (missing) which = "This picture is not there for the pair that is chosen.";
  else if (content.by === "epoch") {
    which = `Epoch ${epochLabel(Number(key))}`;
    if (Number(key) !== choice.epoch) which += ` (nearest to ${epochLabel(choice.epoch)} of those drawn)`;
  } else if (content.by === "pair") {
    which = `Epochs ${currentPair().label}`;
  }
  picture.which.textContent = which;
  picture.which.hidden = which === "";
  describe(picture);
}

// What plotly drew is one image, with a text; its buttons are no part of that.
function describe(picture) {
  const [image, ...others] = picture.plot.querySelectorAll(".main-svg");
  if (!image) return;
  image.setAttribute("role", "img");
  image.setAttribute("aria-label", `${picture.content.title}. ${picture.seen.textContent}`.slice(0, 1000));
  for (const other of others) other.setAttribute("aria-hidden", "true");
}

function update(picture) {
  caption(picture);
  picture.stale = true;
  if (picture.near) queue(picture);
}

// Draw one picture a frame, so that the page stays responsive.
function queue(picture) {
  if (waiting.includes(picture)) return;
  waiting.push(picture);
  if (waiting.length === 1) requestAnimationFrame(drawNext);
}

function drawNext() {
  const picture = waiting.shift();
  if (picture && pictures.has(picture) && picture.stale) draw(picture);
  if (waiting.length) requestAnimationFrame(drawNext);
}

function draw(picture, width) {
  if (!window.Plotly || picture.plot.hidden) return;
  const { data, layout } = chosen(picture.content, frameKey(picture.content));
  if (picture.adapt) picture.adapt(layout, data, picture.plot);
  const size = !width && picture.plot.clientWidth < NARROW ? 11 : BASE.font.size;
  const whole = { ...BASE, ...layout, font: { ...BASE.font, size, ...layout.font } };
  whole.margin = { ...MARGIN, ...layout.margin };
  for (const axis of Object.keys(whole)) {
    if (/^[xy]axis\d*$/.test(axis)) whole[axis] = { automargin: true, ...whole[axis] };
  }
  // A finger on a picture scrolls the page.
  if (matchMedia("(pointer: coarse)").matches) whole.dragmode = false;
  const flat = data.some((trace) => trace.type !== "sankey");
  if (width) {
    const height = whole.height || HEIGHT;
    Object.assign(whole, { width, height: Math.max(Math.min(height, LOW), PRINT_HEIGHT * height), autosize: false });
    picture.plot.style.height = `${whole.height}px`;
  }
  const first = !picture.drawn;
  picture.stale = false;
  picture.drawn = true;
  window.Plotly.react(picture.plot, data, whole, { ...CONFIG, modeBarButtons: [flat ? BUTTONS : BUTTONS.slice(0, 1)] });
  describe(picture);
  if (first && picture.clicked) picture.plot.on("plotly_click", picture.clicked);
}

// On paper everything is drawn, as wide as the page.
function startPrinting() {
  for (const picture of pictures) draw(picture, PRINT_WIDTH);
}

function endPrinting() {
  for (const picture of pictures) update(picture);
}

// Plotly's script may come from elsewhere, and not be there.
function whenPlotlyIsThere(then) {
  const ended = () => {
    if (window.Plotly) return then();
    for (const picture of pictures) {
      picture.plot.textContent = "The script that draws pictures could not be loaded.";
      picture.plot.classList.add("absent");
    }
    return null;
  };
  if (window.Plotly || document.readyState === "complete") return ended();
  addEventListener("load", ended);
  return null;
}

function startPictures() {
  whenPlotlyIsThere(() => {
    for (const picture of pictures) if (picture.near && picture.stale) queue(picture);
  });
  addEventListener("beforeprint", startPrinting);
  addEventListener("afterprint", endPrinting);
  matchMedia("print").addEventListener("change", (event) => (event.matches ? startPrinting() : endPrinting()));
}
