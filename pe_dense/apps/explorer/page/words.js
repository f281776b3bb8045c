"use strict";

// Words that the images are compared with, by one of the backbones with a text tower. As in page.js, every picture that
// depends on a changed setting is requested again.
const words = { text: "", rows: [] };

class WordRow {
  constructor(number) {
    this.row = document.createElement("div");
    this.row.className = "word-row";
    this.row.id = `words-${number}`;
    byId("word-rows").append(this.row);
    this.notes = [];
  }

  clear() {
    this.abort?.abort();
    setBusy(this.row, false);
    this.row.replaceChildren();
    this.notes = [];
    this.key = null;
  }

  async show(query, name) {
    if (query === this.key) return;
    this.key = query;
    this.abort?.abort();
    const abort = (this.abort = new AbortController());
    setBusy(this.row, true);
    try {
      const found = await (await ask(`words?${query}`, { signal: abort.signal })).json();
      if (abort.signal.aborted) return;
      const sheet = { href: `words.png?${query}`, download: `${name}_words.png` };
      const labels = makeFigure(found.labels, "Most similar word", sheet, makeLegend(found));
      const heats = found.words.map((word) => {
        const file = `${name}_${word.name}`.replace(/[^\p{L}\p{N}.-]+/gu, "_");
        const link = { href: word.heat, download: `${file}.png` };
        return makeFigure(word.heat, word.name, link, makeScale(word.low, word.high));
      });
      this.row.replaceChildren(labels, ...heats);
      this.notes = found.notes;
    } catch (error) {
      if (error.name !== "AbortError" && this.key === query) {
        this.clear();
        this.notes = [error.message];
      }
    } finally {
      if (this.abort === abort) setBusy(this.row, false);
      showNotes();
    }
  }
}

function makeElement(kind, className, text = "") {
  const element = document.createElement(kind);
  element.className = className;
  element.textContent = text;
  return element;
}

function makeFigure(url, title, link, below) {
  const figure = document.createElement("figure"), frame = makeElement("div", "frame");
  const image = new Image();
  image.src = url;
  image.alt = title;
  frame.append(image);
  const caption = document.createElement("figcaption"), text = makeElement("span", "", title);
  text.title = title;
  const anchor = Object.assign(makeElement("a", "", "Download"), link);
  caption.append(text, anchor);
  figure.append(caption, frame, below);
  return figure;
}

function makeLegend(found) {
  const list = makeElement("ul", "legend");
  const entries = found.words.map((word) => [word.name, word.share, word.color]);
  if (found.none) entries.push(["none", found.none, "gray"]);
  for (const [name, share, color] of entries) {
    const entry = document.createElement("li"), swatch = makeElement("span", "swatch");
    swatch.style.background = color;
    const percent = share > 0 && share < 0.005 ? "< 1%" : `${(100 * share).toFixed(0)}%`;
    entry.append(swatch, makeElement("span", "word", name), makeElement("span", "share", percent));
    entry.title = name;
    list.append(entry);
  }
  return list;
}

function makeScale(low, high) {
  const scale = makeElement("div", "scale");
  scale.title = "Cosine similarity";
  scale.append(makeElement("span", "", low.toFixed(3)), makeElement("span", "bar"), makeElement("span", "", high.toFixed(3)));
  return scale;
}

function showNotes() {
  const reasons = state.towers.some((tower) => tower.patches) ? [] : state.towers.map((tower) => tower.no_words);
  const notes = [...reasons, ...words.rows.flatMap((row) => row.notes)];
  byId("words-note").textContent = [...new Set(notes)].join(" · ");
}

function refreshWords() {
  const tower = state.towers[byId("words-tower").value];
  const [patches, proxy] = JSON.parse(byId("words-patches").value || "[]");
  words.rows.forEach((row, number) => {
    const image = state.images[number];
    if (!tower || !image || !words.text) return row.clear();
    const query = { tower: tower.name, size: state.size, image, words: words.text, patches };
    if (proxy) query.proxy = proxy;
    const background = byId("words-background").value;
    row.show(`${new URLSearchParams({ ...query, background })}`, `${state.names[number]}_${tower.name}`);
  });
  showNotes();
}

function listPatches() {
  const tower = state.towers[byId("words-tower").value], select = byId("words-patches");
  const others = state.towers.filter((other) => other !== tower);
  select.replaceChildren();
  for (const patches of tower.patches) {
    if (patches !== "proxy") select.append(new Option(patches, JSON.stringify([patches])));
    else if (!others.length) select.append(new Option("proxy: load a second backbone", ""));
    else for (const other of others) select.append(new Option(`proxy: ${other.name}`, JSON.stringify([patches, other.name])));
  }
  for (const option of select.options) option.disabled = !option.value;
  select.value = JSON.stringify(["pooled"]);
}

function makeWords() {
  words.rows = [0, 1].map((number) => new WordRow(number));
  const form = byId("words-form"), select = byId("words-tower"), slider = byId("words-background");
  for (const [index, tower] of state.towers.entries()) {
    const option = new Option(tower.patches ? tower.name : `${tower.name} (no text tower)`, index);
    option.disabled = !tower.patches;
    select.append(option);
  }
  select.value = state.towers.findIndex((tower) => tower.patches);
  byId("words").hidden = false;
  const showBackground = () => { byId("words-output").textContent = Number(slider.value) ? slider.value : "off"; };
  showBackground();
  showNotes();
  if (!select.value) {
    for (const control of form.elements) control.disabled = true;
    return;
  }
  listPatches();
  select.addEventListener("change", () => { listPatches(); refreshWords(); });
  byId("words-patches").addEventListener("change", refreshWords);
  slider.addEventListener("input", showBackground);
  slider.addEventListener("change", refreshWords);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    words.text = byId("words-text").value.trim();
    refreshWords();
  });
}
