"use strict";
// The arithmetic of the exercises, to play with: IoU, sigmoid, softmax and cross entropy, and the sizes in U-Net.
// All words are in the page, in its language; here are none.

const SIDE = 12; // of the grid, in pixels
const CHANNELS = [64, 128, 256, 512, 1024]; // of U-Net, level by level
const [SMALLEST, LARGEST, STEP] = [188, 2044, 16]; // the sizes that leave even maps to pool
// Classes: 0 background, 1 akahara, 2 madara.
const TRUTH = [
  "............", ".....11.....", "....1111....", "....1111....", "..1..11..1..", "...111111...", ".....11.....",
  ".22..111....", ".2222.111...", "..22222.11..", "..2..2...11.", "............",
].join("").replaceAll(".", "0").split("").map(Number);

/** Return {accuracy, miou, classes: [{intersection, union, iou}]}; iou is null for a class that is in neither array. */
function measure(truth, prediction, count = 3) {
  const classes = [...Array(count).keys()].map((index) => {
    let [intersection, union] = [0, 0];
    truth.forEach((true_class, i) => {
      intersection += true_class === index && prediction[i] === index;
      union += true_class === index || prediction[i] === index;
    });
    return { intersection, union, iou: union ? intersection / union : null };
  });
  const ious = classes.map((one) => one.iou).filter((iou) => iou !== null);
  const right = truth.filter((true_class, i) => true_class === prediction[i]).length;
  return { accuracy: right / truth.length, miou: ious.reduce((sum, iou) => sum + iou, 0) / ious.length, classes };
}

/** Return the classes moved right by some pixels; background comes in. */
function shift(classes, by) {
  return classes.map((_, i) => (i % SIDE < by ? 0 : classes[i - by]));
}

const sigmoid = (logit) => 1 / (1 + Math.exp(-logit));

/** Return sigmoid cross entropy, from the logit: nothing overflows. */
function sigmoidLoss(logit, target) {
  return Math.max(logit, 0) - logit * target + Math.log1p(Math.exp(-Math.abs(logit)));
}

/** Return the same as a logarithm of the probability, each step rounded to float32. */
function naiveLoss(logit, target) {
  const probability = Math.fround(1 / Math.fround(1 + Math.fround(Math.exp(-logit))));
  return -Math.fround(Math.log(target ? probability : Math.fround(1 - probability)));
}

function softmax(logits) {
  const largest = Math.max(...logits); // taken away, so that no exponential overflows
  const parts = logits.map((logit) => Math.exp(logit - largest));
  return parts.map((part) => part / parts.reduce((sum, other) => sum + other));
}

/** Return softmax cross entropy, from the logits. */
function softmaxLoss(logits, target) {
  const largest = Math.max(...logits);
  return largest - logits[target] + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0));
}

/** Return the sizes in U-Net, level by level: {channels, down: [in, out], skip: [from, to], up: [in, out]}.
 *
 * The deepest level has down alone. odd is the first size that cannot be pooled, else null.
 */
function unetSizes(size) {
  const levels = CHANNELS.map((channels) => ({ channels }));
  let odd = null;
  levels.forEach((level, i) => {
    level.down = [size, size - 4];
    if (i < levels.length - 1 && level.down[1] % 2) odd ??= level.down[1];
    size = level.down[1] / 2;
  });
  size = levels.at(-1).down[1];
  for (const level of levels.slice(0, -1).reverse()) {
    level.up = [2 * size, 2 * size - 4];
    level.skip = [level.down[1], 2 * size];
    size = level.up[1];
  }
  return { levels, odd, output: size };
}

const find = (name) => document.getElementById(name);
const show = (name, text) => (find(name).textContent = text);
const format = (number, digits = 3) => (number === null ? "–" : Number.isFinite(number) ? number.toFixed(digits) : "∞");
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const chosen = (name) => Number(document.querySelector(`input[name=${name}]:checked`).value);

function startPainting() {
  const grid = find("grid");
  const names = [...document.querySelectorAll("#brushes label")].map((label) => label.textContent.trim());
  const cells = [];
  let painted = shift(TRUTH, 1);
  for (let row = 0; row < SIDE; row++) {
    const line = grid.appendChild(document.createElement("div"));
    line.setAttribute("role", "row");
    for (let column = 0; column < SIDE; column++) {
      const cell = line.appendChild(document.createElement("div"));
      cell.setAttribute("role", "gridcell");
      cell.tabIndex = cells.length ? -1 : 0; // one stop for the tab key; arrows move on
      cell.className = `truth${TRUTH[cells.length]}`;
      cells.push(cell);
    }
  }
  function update() {
    cells.forEach((cell, i) => {
      cell.dataset.painted = painted[i];
      const place = { row: Math.floor(i / SIDE) + 1, column: (i % SIDE) + 1 };
      const words = { ...place, painted: names[painted[i]], truth: names[TRUTH[i]] };
      cell.setAttribute("aria-label", fill(grid.dataset.cell, words));
    });
    const { accuracy, miou, classes } = measure(TRUTH, painted);
    classes.forEach((one, index) => {
      show(`intersection${index}`, one.intersection);
      show(`union${index}`, one.union);
      show(`iou${index}`, format(one.iou));
    });
    show("miou", format(miou));
    show("accuracy", format(accuracy));
  }
  function paint(cell) {
    const index = cells.indexOf(cell);
    if (index < 0) return;
    painted[index] = chosen("brush");
    update();
  }
  function focus(index) {
    cells.forEach((cell, i) => (cell.tabIndex = i === index ? 0 : -1));
    cells[index].focus();
  }
  grid.addEventListener("pointerdown", (event) => {
    if (!cells.includes(event.target)) return;
    focus(cells.indexOf(event.target));
    event.target.releasePointerCapture(event.pointerId); // a touch would else stay with the pixel where it began
    paint(event.target);
    event.preventDefault();
  });
  grid.addEventListener("pointermove", (event) => event.buttons && paint(event.target));
  grid.addEventListener("keydown", (event) => {
    const index = cells.indexOf(event.target);
    const [row, column] = [Math.floor(index / SIDE), index % SIDE];
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key in moves) {
      const clip = (place) => Math.min(Math.max(place, 0), SIDE - 1);
      focus(clip(row + moves[event.key][0]) * SIDE + clip(column + moves[event.key][1]));
    } else if (event.key === " " || event.key === "Enter") {
      paint(event.target);
    } else {
      return;
    }
    event.preventDefault();
  });
  const presets = { shifted: () => shift(TRUTH, 1), same: () => [...TRUTH], empty: () => TRUTH.map(() => 0) };
  for (const [name, make] of Object.entries(presets)) {
    find(name).addEventListener("click", () => {
      painted = make();
      update();
    });
  }
  update();
}

function startLogit() {
  const at = (logit, value, top) => `${(160 + 8 * logit).toFixed(1)},${(110 - (100 * value) / top).toFixed(1)}`;
  const logits = [...Array(161).keys()].map((i) => (i - 80) / 4);
  const draw = (name, values, top) =>
    find(name).setAttribute("points", logits.map((logit, i) => at(logit, values[i], top)).join(" "));
  function update() {
    const [logit, target] = [Number(find("logit").value), chosen("target")];
    const [probability, loss] = [sigmoid(logit), sigmoidLoss(logit, target)];
    show("logit-value", format(logit, 1));
    show("probability", format(probability, 6));
    show("loss", format(loss, 6));
    show("naive", format(naiveLoss(logit, target), 6));
    draw("sigmoid-curve", logits.map(sigmoid), 1);
    draw("loss-curve", logits.map((other) => sigmoidLoss(other, target)), 20);
    for (const [name, value, top] of [["sigmoid-dot", probability, 1], ["loss-dot", loss, 20]]) {
      const [x, y] = at(logit, value, top).split(",");
      find(name).setAttribute("cx", x);
      find(name).setAttribute("cy", y);
    }
  }
  find("sigmoid").addEventListener("input", update);
  update();
}

function startSoftmax() {
  function update() {
    const logits = [0, 1, 2].map((index) => Number(find(`logit${index}`).value));
    softmax(logits).forEach((probability, index) => {
      show(`logit${index}-value`, format(logits[index], 1));
      show(`probability${index}`, format(probability, 4));
      find(`bar${index}`).style.width = `${100 * probability}%`;
    });
    show("softmax-loss", format(softmaxLoss(logits, chosen("class")), 4));
  }
  find("softmax").addEventListener("input", update);
  update();
}

function startSizes() {
  const input = find("size");
  const table = find("levels");
  function update() {
    const size = Number(input.value);
    const { levels, odd, output } = unetSizes(size);
    const inside = Number.isInteger(size) && size >= SMALLEST && size <= LARGEST;
    const kind = !inside ? "outside" : odd === null ? "possible" : "odd";
    const below = Math.floor((size - SMALLEST) / STEP) * STEP + SMALLEST;
    const near = [below, below + STEP];
    const words = { size, odd, output, near: near.join(", "), smallest: SMALLEST, largest: LARGEST };
    show("sizes-result", fill(find("sizes-result").dataset[kind], words));
    find("sizes-result").dataset.kind = kind;
    input.setAttribute("aria-invalid", kind !== "possible");
    table.replaceChildren();
    for (const level of kind === "possible" ? levels : []) {
      const row = table.insertRow();
      for (const pair of [[level.channels], level.down, level.skip, level.up]) {
        row.insertCell().textContent = pair ? pair.join(" → ") : "–";
      }
    }
  }
  for (const [name, step] of [["smaller", -STEP], ["larger", STEP]]) {
    find(name).addEventListener("click", () => {
      const level = Math.round((Number(input.value) - SMALLEST) / STEP) * STEP + SMALLEST;
      input.value = Math.min(Math.max(level + step, SMALLEST), LARGEST);
      update();
    });
  }
  input.addEventListener("input", update);
  update();
}

startPainting();
startLogit();
startSoftmax();
startSizes();
