"use strict";
const read = id => JSON.parse(document.getElementById(id).textContent);
const make = (tag, classes = "", text = "") => Object.assign(document.createElement(tag), { className: classes, textContent: text });

// ---- language
const root = document.documentElement;
const speak = language => { root.dataset.language = language; root.lang = language; };
speak((navigator.language || "").startsWith("zh") ? "zh" : "en");
document.getElementById("language").addEventListener("click", () => speak(root.dataset.language === "zh" ? "en" : "zh"));
const both = ([en, zh]) => {
  const span = make("span");
  for (const [language, text] of [["en", en], ["zh", zh]]) span.append(Object.assign(make("span", "", text), { lang: language }));
  return span;
};

// ---- tables: a click on a heading sorts, the field above filters
const valueOf = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
const compare = (a, b) => {
  const [x, y] = [Number(a), Number(b)];
  if (a !== "" && b !== "" && !Number.isNaN(x) && !Number.isNaN(y)) return x - y;
  return (a === "") - (b === "") || (a < b ? -1 : a > b ? 1 : 0);
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const descending = head.getAttribute("aria-sort") !== "descending";
    heads.forEach(one => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const rows = [...body.rows].sort((a, b) => compare(valueOf(a, column), valueOf(b, column)));
    body.append(...(descending ? rows.reverse() : rows));
  }));
}
for (const field of document.querySelectorAll("input[data-table]")) {
  const rows = document.getElementById(field.dataset.table).tBodies[0].rows;
  field.addEventListener("input", () => {
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(field.value.toLowerCase());
  });
}

// ---- lines: a page of them is drawn at a time, so that only its pictures are decoded
const [NAME, SET, GROUP, LABEL, SCORE, ERRORS, TEXT, EDITS, OTHER_SCORE, OTHER_ERRORS, OTHER_TEXT, OTHER_EDITS] = [...Array(12).keys()];
const PER_PAGE = 20;
const words = read("words"), { sets, readers, rows: lines } = read("lines");
let pictures = null, chosen = [], page = 0;
const sortBy = document.getElementById("order"), show = document.getElementById("show"), find = document.getElementById("find");

const rate = line => line[ERRORS] / ([...line[LABEL]].length || 1);
const orders = {
  errors: (a, b) => b[ERRORS] - a[ERRORS],
  rate: (a, b) => rate(b) - rate(a),
  surest: (a, b) => b[SCORE] - a[SCORE],
  least_sure: (a, b) => a[SCORE] - b[SCORE],
  as_given: () => 0,
};
const shown = {
  all: () => true,
  wrong: line => line[ERRORS] > 0,
  only_first: line => line[ERRORS] === 0 && line[OTHER_ERRORS] > 0,
  only_second: line => line[ERRORS] > 0 && line[OTHER_ERRORS] === 0,
};

// "12= 1s 2d 1i": so many characters alike, read otherwise, missing, too much
function* pairs(label, text, edits) {
  const there = [...label], found = [...text];
  let i = 0, j = 0;
  for (const [, count, kind] of edits.matchAll(/(\d+)([=sdi])/g)) {
    for (let n = 0; n < +count; n++) yield [kind, kind === "i" ? "" : there[i++], kind === "d" ? "" : found[j++], j];
  }
}
const visible = (character, kind) => character === " " && kind !== "=" ? "␣" : character || " ";

function aligned(label, text, edits, who) {
  const box = make("div", "aligned");
  if (who) box.append(make("span", "who", who));
  for (const [kind, there, found] of pairs(label, text, edits)) {
    const pair = make("span", "pair " + (kind === "=" ? "" : kind));
    pair.append(make("span", "", visible(there, kind)), make("span", "", visible(found, kind)));
    box.append(pair);
  }
  return box;
}

function picture(line, [uri, positions]) {
  const box = make("div", "picture"), image = make("img");
  image.src = uri;
  image.alt = line[LABEL];
  box.append(image);
  const mark = (classes, left, width, title) => {
    const one = make("i", classes);
    one.style.left = left + "%";
    if (width) one.style.width = width + "%";
    one.title = title;
    box.append(one);
  };
  if (positions.length !== [...line[TEXT]].length) return box;
  for (const [kind, there, found, next] of pairs(line[LABEL], line[TEXT], line[EDITS])) {
    if (kind === "d") {
      const before = next ? positions[next - 1][1] : 0, after = next < positions.length ? positions[next][0] : 100;
      mark("gap", (before + after) / 2, 0, there);
    } else {
      const [left, right, score] = positions[next - 1];
      mark(kind === "=" ? "" : kind, left, right - left, `${found} ${score.toFixed(2)}`);
    }
  }
  return box;
}

function drawn(index) {
  const line = lines[index], box = make("article", "line"), head = make("div", "head");
  head.append(make("b", "", line[NAME]));
  if (sets.length > 1) head.append(make("span", "", sets[line[SET]]));
  if (line[GROUP]) head.append(make("span", "", line[GROUP]));
  const told = (word, value) => { const span = both(words[word]); span.append(" " + value); head.append(span); };
  told("errors", line[ERRORS]);
  told("confidence", line[SCORE].toFixed(2));
  box.append(head);
  pictures ??= read("pictures");
  if (pictures[index]) {
    const pan = make("div", "pan");
    pan.append(picture(line, pictures[index]));
    box.append(pan);
  }
  const two = line.length > OTHER_TEXT;
  box.append(aligned(line[LABEL], line[TEXT], line[EDITS], two ? readers[0] : ""));
  if (two) box.append(aligned(line[LABEL], line[OTHER_TEXT], line[OTHER_EDITS], `${readers[1]} · ${line[OTHER_ERRORS]} · ${line[OTHER_SCORE].toFixed(2)}`));
  return box;
}

function draw() {
  const pages = Math.max(1, Math.ceil(chosen.length / PER_PAGE));
  page = Math.min(Math.max(0, page), pages - 1);
  document.getElementById("here").replaceChildren(...chosen.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(drawn));
  for (const place of document.querySelectorAll(".place")) place.textContent = `${page + 1} / ${pages} (${chosen.length})`;
}

function choose() {
  const sought = find.value.toLowerCase();
  chosen = [...lines.keys()].filter(i => shown[show.value](lines[i])
    && (!sought || [NAME, GROUP, LABEL, TEXT].some(field => lines[i][field].toLowerCase().includes(sought))));
  chosen.sort((a, b) => orders[sortBy.value](lines[a], lines[b]));
  page = 0;
  draw();
}
for (const control of [sortBy, show]) control.addEventListener("change", choose);
find.addEventListener("input", choose);
for (const button of document.querySelectorAll("[data-turn]"))
  button.addEventListener("click", () => { page += +button.dataset.turn; draw(); });
choose();
