// The page: its data is read, its parts are put in place, and change with what is chosen.

// What the page holds compressed, by the id of its element.
async function unpacked(id) {
  const text = document.getElementById(id).textContent.trim();
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

// Run plotly's script, where the page holds it; the policy allows this very text.
async function runPlotly() {
  if (!document.getElementById("plotly")) return;
  const script = document.createElement("script");
  script.textContent = await unpacked("plotly");
  document.head.append(script);
}

// Let what is there be seen before the next long work.
function afterPaint() {
  return new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
}

let shownPictures = [];
let shownTables = [];

function sectionOf(section) {
  const titleId = `${section.id}-title`;
  const parts = section.parts.map((part) => {
    if (part.is === "table") {
      const table = tableBlock(part, "h3");
      shownTables.push(table);
      return table.node;
    }
    if (part.is === "facts") {
      return el("dl", { class: "facts" }, part.rows.map(([what, value]) =>
        el("div", {}, el("dt", {}, name(what)), el("dd", {}, said(value)))));
    }
    const picture = pictureFigure(part, "h3");
    shownPictures.push(picture);
    return picture.node;
  });
  return el("section", { id: section.id, "aria-labelledby": titleId },
    el("h2", { id: titleId }, section.title),
    el("div", { class: section.beside ? "beside" : null }, parts));
}

function showSections(place) {
  shownPictures.forEach(forget);
  shownPictures = [];
  shownTables = [];
  place.replaceChildren(...currentSplit().sections.map(sectionOf));
}

// What the address names was not there yet when the browser looked for it.
function showAddressed() {
  const place = document.getElementById(location.hash.slice(1));
  if (place) place.scrollIntoView();
}

async function start() {
  let data;
  try {
    data = JSON.parse(await unpacked("data"));
  } catch (error) {
    document.getElementById("report").textContent =
      `This browser cannot read the report (${error.message}): take a newer one.`;
    return;
  }
  startChoice(data);
  document.getElementById("controls").replaceWith(controlBar());
  const sections = el("div", { id: "sections" });
  document.getElementById("report").append(firstScreen(), sections);
  showSections(sections);
  onChoice((what) => {
    if (what.has("split")) return showSections(sections);
    const moved = (part) => what.has(part.content.by);
    shownPictures.filter(moved).forEach(update);
    shownTables.filter(moved).forEach(updateTable);
    return null;
  });
  document.documentElement.dataset.ready = "yes";
  await afterPaint();
  showAddressed();
  await runPlotly();
  startPictures();
}

start();
