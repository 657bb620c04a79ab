'use strict';
// Text from captions and file names is data: it becomes text nodes only, in <bdi> so that its direction stays its own.
const data = JSON.parse(document.getElementById('data').textContent);
const get = id => document.getElementById(id);
const make = (tag, text, kind) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (kind) node.className = kind;
  return node;
};
const isolate = text => make('bdi', text);
const percent = share => {
  if (share === null || share === undefined) return '–';
  const of = 100 * share;
  return (of === 0 ? '0' : of < .01 ? '< 0.01' : of < 1 ? of.toFixed(2) : of < 10 || of > 99 && of < 100 ? of.toFixed(1) : of.toFixed(0)) + ' %';
};
const times = value => value.toFixed(Math.abs(value) < 10 ? 1 : 0) + '×';
const [WIDTH, HEIGHT] = data.size;
/** Times the even share that the top of a scale stands for at least. */
const LEAST_CEILING = 3;
const photo = new Image();
const views = [];
let box = null;

/* ---------- colours: equal steps of a value look like equal steps ---------- */

const tables = Object.fromEntries(data.colours.map(([name, stops]) => [name, spread(stops)]));
function spread(stops) {
  const table = new Uint8Array(256 * 3);
  for (let at = 0; at < 256; at++) {
    const place = at / 255 * (stops.length - 1), low = Math.min(stops.length - 2, Math.floor(place));
    for (let k = 0; k < 3; k++) table[3 * at + k] = Math.round(stops[low][k] + (stops[low + 1][k] - stops[low][k]) * (place - low));
  }
  return table;
}
const SPOTLIGHT = 'spotlight';
const table = () => tables[get('colours').value] || tables[Object.keys(tables)[0]];
const index = share => Math.max(0, Math.min(255, Math.round(255 * share))) || 0;
const rgb = share => { const at = 3 * index(share), of = table(); return [of[at], of[at + 1], of[at + 2]]; };

const veil = (share, opacity) => opacity * (opacity + (1 - opacity) * Math.max(0, Math.min(1, share)));

/** A picture of a grid: each value as a share of `top`. `fine` times as many pixels, with values in between. */
function picture(values, rows, cols, top, fine, opacity) {
  const wide = cols * fine, high = rows * fine;
  const out = document.createElement('canvas');
  out.width = wide; out.height = high;
  const context = out.getContext('2d'), pixels = context.createImageData(wide, high), spot = get('colours').value === SPOTLIGHT && opacity !== undefined;
  // Little relevance hides less of the photo than much, so that what is under it can be seen.
  const alpha = share => opacity === undefined ? 255 : Math.round(255 * veil(share, opacity));
  const clamp = (at, length) => Math.max(0, Math.min(length - 1, at));
  for (let y = 0; y < high; y++) {
    const row = (y + .5) / fine - .5, top0 = Math.floor(row), down = row - top0;
    for (let x = 0; x < wide; x++) {
      let value;
      if (fine === 1) value = values[y * cols + x];
      else {
        const col = (x + .5) / fine - .5, left = Math.floor(col), right = col - left;
        const cell = (r, c) => values[clamp(r, rows) * cols + clamp(c, cols)];
        value = (cell(top0, left) * (1 - right) + cell(top0, left + 1) * right) * (1 - down) + (cell(top0 + 1, left) * (1 - right) + cell(top0 + 1, left + 1) * right) * down;
      }
      const share = value / top, at = 4 * (y * wide + x);
      if (spot) pixels.data.set([0, 0, 0, Math.round(255 * opacity * (1 - Math.max(0, Math.min(1, share))))], at);
      else { const from = 3 * index(share), of = table(); pixels.data[at] = of[from]; pixels.data[at + 1] = of[from + 1]; pixels.data[at + 2] = of[from + 2]; pixels.data[at + 3] = alpha(share); }
    }
  }
  context.putImageData(pixels, 0, 0);
  return out;
}

/* ---------- maps ---------- */

/** The cells of at least half the peak that hang together with it, as the program has it. */
function core(values, cols) {
  let peak = -1;
  values.forEach((value, at) => { if (value > 0 && (peak < 0 || value > values[peak])) peak = at; });
  if (peak < 0) return null;
  const rows = values.length / cols, taken = new Set([peak]), open = [peak], edges = [rows, cols, 0, 0];
  while (open.length) {
    const cell = open.pop(), row = Math.floor(cell / cols), col = cell % cols;
    edges[0] = Math.min(edges[0], row); edges[1] = Math.min(edges[1], col); edges[2] = Math.max(edges[2], row + 1); edges[3] = Math.max(edges[3], col + 1);
    const visit = next => { if (!taken.has(next) && values[next] >= values[peak] / 2) { taken.add(next); open.push(next); } };
    if (row > 0) visit(cell - cols);
    if (row + 1 < rows) visit(cell + cols);
    if (col > 0) visit(cell - 1);
    if (col + 1 < cols) visit(cell + 1);
  }
  let inside = 0, all = 0;
  values.forEach((value, at) => {
    if (!(value > 0)) return;
    all += value;
    const row = Math.floor(at / cols), col = at % cols;
    if (row >= edges[0] && row < edges[2] && col >= edges[1] && col < edges[3]) inside += value;
  });
  return { peak, edges, share: inside / all };
}

/** One model's reading of the photo. */
class View {
  constructor(model, place) {
    Object.assign(this, model);
    this.place = place;
    this.count = this.rows * this.cols;
    this.even = 1 / this.count;
    this.method = 0;
    this.head = null;
    this.hovered = null;
    // What can be chosen: every word, then every phrase.
    this.items = this.words.map((word, at) => ({ text: word.text, words: [at, at + 1] }));
    for (const [from, to] of this.phrases) this.items.push({ text: this.words.slice(from, to).map(word => word.text).join(' '), words: [from, to] });
    const first = this.words.findIndex(word => word.content);
    this.chosen = first < 0 ? 0 : first;
    this.maps = this.methods.map(method => method.words.map(word => word.map(value => value / 1e5)));
    this.bytes = null;
  }

  get shown() { return this.items[this.hovered ?? this.chosen]; }

  mean(of) {
    const [from, to] = this.shown.words, out = new Array(this.count).fill(0);
    for (let word = from; word < to; word++) { const map = of(word); for (let at = 0; at < this.count; at++) out[at] += map[at] / (to - from); }
    return out;
  }

  headOf(word, head) {
    const start = (word * this.layers * this.heads + head) * this.count, most = this.peaks[word * this.layers * this.heads + head];
    return Array.from(this.bytes.subarray(start, start + this.count), value => value / 255 * most);
  }

  values() {
    if (!this.items.length || !this.methods.length) return [];
    return this.head === null ? this.mean(word => this.maps[this.method][word]) : this.mean(word => this.headOf(word, this.head));
  }

  /** What the hottest colour stands for. */
  ceiling(values) {
    let most = LEAST_CEILING * this.even;
    const see = value => { if (value > most) most = value; };
    if (get('scale').value === 'own') values.forEach(see);
    else if (this.head !== null) this.peaks.forEach(see);
    else this.maps[this.method].forEach(map => map.forEach(see));
    return most;
  }

  cellBox(cell) {
    const [x0, y0, x1, y1] = this.region, wide = (x1 - x0) / this.cols, high = (y1 - y0) / this.rows;
    const left = x0 + cell % this.cols * wide, top = y0 + Math.floor(cell / this.cols) * high;
    return [left, top, left + wide, top + high];
  }

  gridBox([top, left, bottom, right]) {
    const [x0, y0, x1, y1] = this.region, wide = (x1 - x0) / this.cols, high = (y1 - y0) / this.rows;
    return [x0 + left * wide, y0 + top * high, x0 + right * wide, y0 + bottom * high];
  }

  cellAt([x, y]) {
    const [x0, y0, x1, y1] = this.region, col = Math.floor((x - x0) / (x1 - x0) * this.cols), row = Math.floor((y - y0) / (y1 - y0) * this.rows);
    return col >= 0 && col < this.cols && row >= 0 && row < this.rows ? row * this.cols + col : null;
  }

  /** The share of a word's map in a box of the photo; what is negative does not count. */
  shareIn([x0, y0, x1, y1], word) {
    let inside = 0;
    this.maps[this.method][word].forEach((value, cell) => {
      if (!(value > 0)) return;
      const [left, top, right, bottom] = this.cellBox(cell);
      const across = Math.max(0, Math.min(x1, right) - Math.max(x0, left)) / (right - left), down = Math.max(0, Math.min(y1, bottom) - Math.max(y0, top)) / (bottom - top);
      inside += value * across * down;
    });
    return inside;
  }

  mapName() {
    if (this.head === null) return this.methods[this.method].about;
    return 'cross-attention, layer ' + Math.floor(this.head / this.heads) + ', head ' + this.head % this.heads;
  }

  /* ----- what is built once ----- */

  build() {
    this.root = make('article', undefined, 'view');
    this.root.setAttribute('aria-label', 'Reading of the model ' + this.model);
    this.root.append(this.buildCaption(), this.buildStage(), this.buildFacts(), this.buildBelow());
    return this.root;
  }

  buildCaption() {
    const part = make('section', undefined, 'caption');
    const line = make('p', undefined, 'quiet');
    line.append('Caption by ');
    if (!this.generated) line.replaceChildren('Given caption, read by ');
    line.append(isolate(this.model), '. Hover or click a word, or step with the arrow keys; the bar below a word is its probability.');
    part.append(line);
    const words = make('div', undefined, 'words'), phrases = make('div', undefined, 'words phrases');
    words.setAttribute('role', 'radiogroup'); words.setAttribute('aria-label', 'Words of the caption');
    phrases.setAttribute('role', 'radiogroup'); phrases.setAttribute('aria-label', 'Phrases of the caption');
    this.buttons = this.items.map((item, at) => {
      const button = make('button'), word = this.words[item.words[0]], alone = at < this.words.length;
      button.type = 'button'; button.setAttribute('role', 'radio');
      button.append(isolate(item.text));
      if (alone && !word.content) button.className = 'little';
      button.style.setProperty('--p', 100 * this.probability(item) + '%');
      button.setAttribute('aria-label', item.text + ', probability ' + percent(this.probability(item)));
      button.onclick = () => this.choose(at);
      button.onpointerenter = event => { if (event.pointerType !== 'touch') this.hover(at); };
      button.onpointerleave = () => this.hover(null);
      button.onkeydown = event => this.step(event, at);
      (alone ? words : phrases).append(button);
      return button;
    });
    if (this.words.length) part.append(words); else part.append(make('p', 'The caption has no words.'));
    if (this.phrases.length) part.append(phrases);
    return part;
  }

  buildStage() {
    const part = make('section', undefined, 'stage');
    part.setAttribute('aria-label', 'Map over the photo');
    const frame = make('div', undefined, 'frame');
    this.canvas = make('canvas', undefined, 'photo');
    this.canvas.setAttribute('role', 'img'); this.canvas.tabIndex = 0;
    this.canvas.onkeydown = event => this.step(event, this.chosen, true);
    this.listenForBoxes();
    frame.append(this.canvas);
    this.legend = make('div', undefined, 'legend');
    this.bar = make('canvas'); this.bar.width = 256; this.bar.height = 12; this.bar.setAttribute('aria-hidden', 'true');
    this.high = make('span');
    this.legend.append(make('span', '0'), this.bar, this.high);
    this.note = make('p', undefined, 'quiet note');
    this.ranked = make('div'); this.ranked.setAttribute('aria-live', 'polite');
    part.append(frame, this.legend, this.note, this.ranked);
    return part;
  }

  buildFacts() {
    const part = make('section', undefined, 'facts');
    this.title = make('h2'); this.title.setAttribute('aria-live', 'polite');
    this.about = make('div');
    part.append(this.title, this.about, this.buildMethods());
    if (this.layers * this.heads > 0) {
      part.append(make('h3', 'Layers (down) and heads (across) of cross-attention'));
      this.headNote = make('p', undefined, 'quiet');
      this.grid = make('div', undefined, 'heads');
      this.grid.setAttribute('role', 'group'); this.grid.setAttribute('aria-label', 'Layers and heads');
      part.append(this.headNote, this.grid);
    }
    return part;
  }

  buildMethods() {
    const set = make('fieldset', undefined, 'methods');
    set.append(make('legend', 'Method, and how far its maps are faithful'));
    const measured = this.methods.some(method => method.faithful);
    this.radios = this.methods.map((method, at) => {
      const label = make('label'), radio = make('input');
      radio.type = 'radio'; radio.name = 'method-' + this.place; radio.checked = at === 0;
      radio.onchange = () => { for (const view of views) view.take(method.method, view === this ? at : undefined); };
      label.append(radio, make('span', method.about + (at === 0 && this.methods.length > 1 ? ' (the default of this model)' : '')));
      label.append(make('span', method.faithful || (measured ? 'not measured' : ''), 'quiet'));
      set.append(label);
      return radio;
    });
    if (!measured) set.append(make('p', 'Not measured for this model: `patchword inspect evaluate` measures it, and the figures then stand here.', 'quiet'));
    return set;
  }

  buildBelow() {
    const part = make('section', undefined, 'below');
    if (!this.words.length) return part;
    const regions = make('details'); regions.open = true;
    regions.append(make('summary', 'Words and their regions'));
    const scroll = make('div', undefined, 'scroll'), list = make('table'), head = make('thead'), names = make('tr');
    scroll.tabIndex = 0; scroll.setAttribute('role', 'region'); scroll.setAttribute('aria-label', 'Words and their regions');
    for (const [name, kind] of [['word'], ['probability', 'number'], ['region hidden', 'number'], ['blurred photo', 'number'], ['no photo', 'number'], ['region: left, top, right, bottom'], ['share of the map', 'number'], ['peak', 'number'], ['on no patch', 'number']]) {
      const cell = make('th', name, kind); cell.scope = 'col'; names.append(cell);
    }
    this.regionRows = make('tbody');
    head.append(names); list.append(head, this.regionRows); scroll.append(list);
    regions.append(scroll, make('p', 'Probability: of the word, given the words before it. Region hidden, blurred photo, no photo (the mean colour): the same word then. Where it is as likely without the photo, language alone expects it. Peak: times an even share. On no patch: what falls on class and register tokens, which lie nowhere on the photo.', 'quiet'));
    const self = make('details');
    self.append(make('summary', 'Words × words: self-attention of the decoder'));
    const around = make('div', undefined, 'scroll');
    around.tabIndex = 0; around.setAttribute('role', 'region'); around.setAttribute('aria-label', 'Self-attention between words');
    this.matrix = make('table', undefined, 'matrix'); around.append(this.matrix);
    self.append(around, make('p', 'Each row: where the step that writes the word looked among the words before it, in per cent, mean of layers and heads; the rest goes to the begin token.', 'quiet'));
    part.append(regions, self);
    this.self = self;
    return part;
  }

  /* ----- what changes ----- */

  probability(item) { return this.words.slice(...item.words).reduce((product, word) => product * word.probability, 1); }

  choose(at, focus) {
    if (!this.items.length) return;
    this.chosen = at; this.hovered = null;
    if (focus) this.buttons[at].focus();
    this.follow(); this.refresh();
  }

  hover(at) {
    if (this.hovered === at) return;
    this.hovered = at; this.follow(); this.refresh();
  }

  /** The other model shows the same word, where it says it. */
  follow() {
    for (const other of views) {
      if (other === this || !this.items.length) continue;
      const same = other.items.findIndex(item => item.text.toLowerCase() === this.shown.text.toLowerCase());
      if (same < 0) continue;
      if (this.hovered === null) { other.chosen = same; other.hovered = null; } else other.hovered = same;
      other.refresh();
    }
    if (this.hovered === null) for (const other of views) if (other !== this && other.hovered !== null) { other.hovered = null; other.refresh(); }
  }

  step(event, from, stay) {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key], count = this.items.length;
    let to = null;
    if (by) to = (from + by + count) % count;
    else if (event.key === 'Home') to = 0;
    else if (event.key === 'End') to = count - 1;
    if (to === null || event.altKey || event.ctrlKey || event.metaKey || !count) return;
    event.preventDefault();
    this.choose(to, !stay);
  }

  take(name, at) {
    const to = at ?? this.methods.findIndex(method => method.method === name);
    if (to < 0) return;
    this.method = to; this.head = null; this.radios[to].checked = true;
    this.refresh(); this.showRegions(); this.rank();
  }

  refresh() {
    this.buttons.forEach((button, at) => {
      const on = at === (this.hovered ?? this.chosen);
      button.setAttribute('aria-checked', on);
      button.tabIndex = at === this.chosen || (at === this.words.length && this.chosen < this.words.length) || (at === 0 && this.chosen >= this.words.length) ? 0 : -1;
    });
    this.showFacts(); this.showHeads(); this.draw();
  }

  draw() {
    const scale = photo.naturalWidth / WIDTH, sharp = Math.max(1, Math.ceil(640 / photo.naturalWidth));
    const wide = photo.naturalWidth * sharp, high = photo.naturalHeight * sharp, by = scale * sharp;
    const canvas = this.canvas;
    if (canvas.width !== wide || canvas.height !== high) { canvas.width = wide; canvas.height = high; }
    const context = canvas.getContext('2d'), spot = get('colours').value === SPOTLIGHT;
    context.imageSmoothingEnabled = true; context.imageSmoothingQuality = 'high';
    // Colours of the photo would be taken for colours of the map.
    context.filter = spot || +get('opacity').value === 0 ? 'none' : 'grayscale(1)';
    context.drawImage(photo, 0, 0, wide, high);
    context.filter = 'none';
    const values = this.values();
    if (!values.length) { canvas.setAttribute('aria-label', 'The photo'); return; }
    const top = this.ceiling(values), [x0, y0, x1, y1] = this.region, cells = get('cells').checked;
    const map = picture(values, this.rows, this.cols, top, cells ? 1 : 8, get('opacity').value / 100);
    context.imageSmoothingEnabled = !cells;
    context.drawImage(map, x0 * by, y0 * by, (x1 - x0) * by, (y1 - y0) * by);
    this.paleOutside(context, by, wide, high);
    if (cells) this.lines(context, by);
    const found = core(values, this.cols);
    if (get('marks').checked && found) {
      outline(context, this.gridBox(found.edges), by, [7, 5]);
      outline(context, this.cellBox(found.peak), by);
    }
    if (box) outline(context, box, by, [2, 3]);
    this.drawLegend(top);
    const item = this.shown, elsewhere = this.head === null ? this.elsewhere(item) : null;
    this.note.replaceChildren(isolate(item.text), ': ' + this.mapName() + (elsewhere >= .001 ? '; ' + percent(elsewhere) + ' of it on class or register tokens, which lie nowhere on the photo' : '') + '.');
    const at = found ? this.cellBox(found.peak).map(Math.round) : null;
    canvas.setAttribute('aria-label', 'Map of ' + item.text + ' over the photo. ' + (at ? 'Peak, ' + times(values[found.peak] / this.even) + ' an even share, at pixels ' + at[0] + ', ' + at[1] + ' to ' + at[2] + ', ' + at[3] + '; region ' + this.gridBox(found.edges).map(Math.round).join(', ') + ' with ' + percent(found.share) + ' of the map.' : 'Nothing on it is positive.'));
  }

  elsewhere(item) {
    const all = this.methods[this.method].elsewhere.slice(...item.words);
    return all.reduce((sum, share) => sum + share, 0) / Math.max(1, all.length);
  }

  /** What the model never saw. */
  paleOutside(context, by, wide, high) {
    const [x0, y0, x1, y1] = this.region.map(edge => edge * by);
    context.fillStyle = 'rgba(255, 255, 255, .6)';
    context.fillRect(0, 0, wide, Math.max(0, y0)); context.fillRect(0, y1, wide, Math.max(0, high - y1));
    context.fillRect(0, Math.max(0, y0), Math.max(0, x0), Math.min(high, y1) - Math.max(0, y0));
    context.fillRect(x1, Math.max(0, y0), Math.max(0, wide - x1), Math.min(high, y1) - Math.max(0, y0));
  }

  lines(context, by) {
    const [x0, y0, x1, y1] = this.region.map(edge => edge * by);
    context.strokeStyle = 'rgba(255, 255, 255, .35)'; context.lineWidth = 1; context.beginPath();
    for (let col = 0; col <= this.cols; col++) { const x = x0 + (x1 - x0) * col / this.cols; context.moveTo(x, y0); context.lineTo(x, y1); }
    for (let row = 0; row <= this.rows; row++) { const y = y0 + (y1 - y0) * row / this.rows; context.moveTo(x0, y); context.lineTo(x1, y); }
    context.stroke();
  }

  drawLegend(top) {
    const context = this.bar.getContext('2d'), spot = get('colours').value === SPOTLIGHT;
    const opacity = get('opacity').value / 100;
    // As over a middling grey, so that bar and map match.
    const over = share => { const part = veil(share, opacity); return rgb(share).map(value => Math.round(128 + (value - 128) * part)); };
    for (let x = 0; x < 256; x++) { context.fillStyle = 'rgb(' + (spot ? [x, x, x] : over(x / 255)) + ')'; context.fillRect(x, 0, 1, 12); }
    const even = Math.round(this.even / top * 255);
    context.fillStyle = '#fff'; context.fillRect(even - 1, 0, 1, 12); context.fillStyle = '#000'; context.fillRect(even, 0, 1, 12);
    this.high.textContent = times(top / this.even) + ' an even share (marked)' + (get('scale').value === 'own' ? ', this map' : ', all words');
  }

  showFacts() {
    this.about.replaceChildren();
    if (!this.items.length) { this.title.textContent = ''; return; }
    const item = this.shown, [from, to] = item.words, word = this.words[from];
    this.title.replaceChildren(isolate(item.text));
    const bars = [['the photo', this.probability(item), true]], seen = to - from === 1 ? word.evidence : null;
    if (seen) {
      // It is the region of the default map, whichever map is shown.
      if (seen.hidden !== null) bars.push(['its region hidden' + (this.method === 0 && this.head === null ? '' : ' (by ' + this.methods[0].method + ')'), seen.hidden]);
      bars.push(['the photo blurred', seen.blurred], ['no photo (mean colour)', seen.blank]);
    }
    this.about.append(make('h3', 'How likely, with …'), chart(bars));
    if (seen) this.about.append(make('p', reading(word, seen), 'quiet'));
    else if (to - from > 1) this.about.append(make('p', 'The map of a phrase is the mean of its words’ maps; its probability, the product of theirs.', 'quiet'));
    else this.about.append(make('p', 'What hiding the region does was not measured.', 'quiet'));
    if (to - from === 1) this.about.append(make('h3', 'What else could have stood here'), chart(word.alternatives.map(other => [other.text, other.probability, other.text === word.text])));
  }

  showHeads() {
    if (!this.grid) return;
    const [from, to] = this.shown ? this.shown.words : [0, 0], grid = this.grid;
    if (!this.bytes || to === from) { grid.replaceChildren(); this.headNote.textContent = this.bytes ? '' : 'This browser cannot unpack them; attention.json has every one.'; return; }
    this.headNote.textContent = this.head === null ? 'Click one to enlarge it over the photo. All on one scale, the top of it the hottest patch of this word in any head.' : 'Layer ' + Math.floor(this.head / this.heads) + ', head ' + this.head % this.heads + ' is over the photo. Click it again for the method.';
    const top = Math.max(LEAST_CEILING * this.even, ...this.peaks.slice(from * this.layers * this.heads, to * this.layers * this.heads));
    if (!grid.children.length) this.buildHeads();
    grid.querySelectorAll('button').forEach((button, at) => {
      button.setAttribute('aria-pressed', at === this.head);
      const values = this.mean(word => this.headOf(word, at)), canvas = button.firstChild, small = picture(values, this.rows, this.cols, top, 1);
      canvas.getContext('2d').drawImage(small, 0, 0);
    });
  }

  buildHeads() {
    this.grid.style.gridTemplateColumns = 'auto repeat(' + this.heads + ', minmax(0, 1fr))';
    this.grid.append(make('span', ''));
    for (let head = 0; head < this.heads; head++) this.grid.append(make('span', head));
    const [x0, y0, x1, y1] = this.region;
    for (let at = 0; at < this.layers * this.heads; at++) {
      if (at % this.heads === 0) this.grid.append(make('span', at / this.heads));
      const button = make('button'), canvas = make('canvas');
      button.type = 'button'; button.setAttribute('aria-label', 'Layer ' + Math.floor(at / this.heads) + ', head ' + at % this.heads);
      canvas.width = this.cols; canvas.height = this.rows;
      canvas.style.aspectRatio = (x1 - x0) + ' / ' + (y1 - y0);
      button.onclick = () => { this.head = this.head === at ? null : at; this.showHeads(); this.draw(); };
      button.append(canvas); this.grid.append(button);
    }
  }

  showRegions() {
    if (!this.regionRows) return;
    this.regionRows.replaceChildren(...this.words.map((word, at) => {
      const row = make('tr'), seen = word.evidence, map = this.maps[this.method]?.[at] ?? [], found = core(map, this.cols);
      const name = make('th'); name.scope = 'row'; name.append(isolate(word.text));
      const number = text => make('td', text, 'number');
      row.append(name, number(percent(word.probability)), number(percent(seen?.hidden)), number(percent(seen?.blurred)), number(percent(seen?.blank)),
        make('td', found ? this.gridBox(found.edges).map(Math.round).join(', ') : '–'), number(percent(found?.share)), number(found ? times(map[found.peak] / this.even) : '–'),
        number(percent(this.methods[this.method]?.elsewhere[at])));
      return row;
    }));
  }

  showMatrix() {
    if (!this.matrix) return;
    const head = make('thead'), top = make('tr'), body = make('tbody');
    top.append(make('td'));
    this.words.slice(0, -1).forEach(word => { const name = make('th'); name.scope = 'col'; name.append(isolate(word.text)); top.append(name); });
    head.append(top);
    this.words.forEach((word, at) => {
      const row = make('tr'), name = make('th'); name.scope = 'row'; name.append(isolate(word.text)); row.append(name);
      this.words.slice(0, -1).forEach((_, other) => {
        const cell = make('td');
        if (other < at) {
          const share = word.to_words[other], colour = rgb(2 * share), [red, green, blue] = colour.map(value => { const part = value / 255; return part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4; });
          cell.style.background = 'rgb(' + colour + ')';
          cell.style.color = .2126 * red + .7152 * green + .0722 * blue > .179 ? '#000' : '#fff';
          cell.textContent = Math.round(100 * share);
        }
        row.append(cell);
      });
      body.append(row);
    });
    this.matrix.replaceChildren(head, body);
  }

  rank() {
    this.ranked.replaceChildren();
    if (!box || !this.words.length || !this.methods.length) return;
    const [x0, y0, x1, y1] = this.region, across = Math.max(0, Math.min(x1, box[2]) - Math.max(x0, box[0])), down = Math.max(0, Math.min(y1, box[3]) - Math.max(y0, box[1]));
    const even = across * down / ((x1 - x0) * (y1 - y0));
    const shares = this.words.map((_, at) => [at, this.shareIn(box, at)]).sort((one, other) => other[1] - one[1]);
    this.ranked.append(make('h3', 'What rests on ' + box.map(Math.round).join(', ')), make('p', 'The share of each word’s map that lies in the box; an even map has ' + percent(even) + ' there.', 'quiet'));
    this.ranked.append(chart(shares.map(([at, share]) => [this.words[at].text, share, at === this.chosen, () => this.choose(at)])));
  }

  /* ----- boxes ----- */

  listenForBoxes() {
    const canvas = this.canvas;
    let from = null, moved = false;
    const at = event => { const edge = canvas.getBoundingClientRect(); return [(event.clientX - edge.left) / edge.width * WIDTH, (event.clientY - edge.top) / edge.height * HEIGHT].map((value, axis) => Math.max(0, Math.min(data.size[axis], value))); };
    canvas.onpointerdown = event => {
      if (event.button !== 0 || event.pointerType === 'touch' && !document.body.classList.contains('drawing')) return;
      from = at(event); moved = false; canvas.setPointerCapture(event.pointerId);
    };
    canvas.onpointermove = event => {
      if (!from) return;
      const to = at(event), edge = canvas.getBoundingClientRect();
      moved ||= Math.hypot((to[0] - from[0]) * edge.width / WIDTH, (to[1] - from[1]) * edge.height / HEIGHT) > 4;
      if (moved) { box = [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])]; for (const view of views) view.draw(); }
    };
    canvas.onpointerup = event => {
      if (!from) return;
      const cell = this.cellAt(at(event));
      from = null;
      if (moved) setBox(box); else if (cell !== null) setBox(this.cellBox(cell));
    };
    canvas.onpointercancel = () => { from = null; };
    // A tap of a finger, which otherwise scrolls.
    canvas.onclick = event => { if (event.pointerType === 'touch' && !document.body.classList.contains('drawing')) { const cell = this.cellAt(at(event)); if (cell !== null) setBox(this.cellBox(cell)); } };
  }
}

function outline(context, [x0, y0, x1, y1], by, dash = []) {
  const around = () => context.strokeRect(x0 * by, y0 * by, (x1 - x0) * by, (y1 - y0) * by), fine = Math.max(1, context.canvas.width / 640);
  context.save();
  context.lineWidth = 4 * fine; context.strokeStyle = 'rgba(0, 0, 0, .75)'; around();
  context.setLineDash(dash.map(length => length * fine)); context.lineWidth = 2 * fine; context.strokeStyle = '#fff'; around();
  context.restore();
}

/** Bars from rows of a text, a share, whether it stands out, and what a click does. */
function chart(rows) {
  const list = make('table', undefined, 'bars'), body = make('tbody');
  for (const [text, share, chosen, click] of rows) {
    const row = make('tr', undefined, chosen ? 'chosen' : ''), name = make('th'), bar = make('td'), meter = make('span', undefined, 'meter');
    name.scope = 'row';
    if (click) { const button = make('button'); button.type = 'button'; button.append(isolate(text)); button.onclick = click; name.append(button); } else name.append(isolate(text));
    meter.style.width = 100 * Math.max(0, Math.min(1, share)) + '%';
    bar.append(meter); row.append(name, bar, make('td', percent(share), 'number')); body.append(row);
  }
  list.append(body);
  return list;
}

/** What the numbers say, in a sentence or two. */
function reading(word, seen) {
  const nats = (a, b) => Math.log(Math.max(a, 1e-9)) - Math.log(Math.max(b, 1e-9)), out = [];
  const moved = nats(word.probability, seen.blank), times = Math.exp(Math.abs(moved));
  const factor = times >= 1000 ? 'more than 1000' : times.toFixed(times < 10 ? 1 : 0);
  if (Math.abs(moved) < .1) out.push('Language alone expects this word: without a photo it is as likely.');
  else if (moved > 0) out.push('The photo makes it ' + factor + ' times as likely as language alone.');
  else out.push('The photo makes it ' + factor + ' times less likely than language alone.');
  if (seen.hidden !== null) {
    const fall = nats(word.probability, seen.hidden);
    if (fall > .1) out.push('Hiding the region takes it from ' + percent(word.probability) + ' to ' + percent(seen.hidden) + '.');
    else if (fall < -.1) out.push('Hiding the region makes it likelier: the word does not rest on it.');
    else out.push('Hiding the region changes nothing: the word does not rest on that region alone, however bright it is.');
  }
  return out.join(' ');
}

function setBox(to) {
  box = to;
  ['x0', 'y0', 'x1', 'y1'].forEach((id, at) => { get(id).value = to ? Math.round(to[at]) : ''; });
  get('clear').hidden = !to;
  for (const view of views) { view.draw(); view.rank(); }
}

/* ---------- the page ---------- */

async function unpack(text) {
  if (!text || typeof DecompressionStream === 'undefined') return null;
  const packed = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function theme() {
  const select = get('theme'), key = 'patchword-theme';
  const apply = () => { if (select.value) document.documentElement.dataset.theme = select.value; else delete document.documentElement.dataset.theme; };
  // A page opened from disk may have no storage.
  try { select.value = localStorage.getItem(key) || ''; } catch { /* as the system has it */ }
  select.onchange = () => { apply(); try { localStorage.setItem(key, select.value); } catch { /* not kept */ } };
  apply();
}

function controls() {
  const names = get('colours');
  for (const name of [...Object.keys(tables), SPOTLIGHT]) { const option = make('option', name); option.value = name; names.append(option); }
  const all = what => () => views.forEach(what);
  for (const id of ['opacity', 'cells', 'marks']) get(id).oninput = all(view => view.draw());
  get('scale').onchange = all(view => view.draw());
  names.onchange = all(view => { view.showHeads(); view.showMatrix(); view.draw(); });
  get('draw').onclick = () => get('draw').setAttribute('aria-pressed', document.body.classList.toggle('drawing'));
  get('box').onsubmit = event => {
    event.preventDefault();
    const [x0, y0, x1, y1] = ['x0', 'y0', 'x1', 'y1'].map(id => get(id).value === '' ? NaN : Number(get(id).value));
    if (x1 > x0 && y1 > y0) setBox([x0, y0, x1, y1]);
  };
  get('clear').onclick = () => setBox(null);
  ['x0', 'y0', 'x1', 'y1'].forEach((id, at) => { get(id).max = data.size[at % 2]; });
}

async function start() {
  document.title = data.image + ' – patchword inspect';
  get('title').textContent = data.image;
  if (data.back) { get('back').href = data.back; get('back').hidden = false; }
  theme(); controls();
  document.body.classList.toggle('pair', data.views.length > 1);
  document.body.classList.toggle('only-content', data.only_content);
  for (const [place, model] of data.views.entries()) { const view = new View(model, place); views.push(view); get('views').append(view.build()); }
  // With one model the tools stand below its photo.
  if (views.length === 1) { views[0].root.querySelector('.facts').after(get('tools')); }
  const about = get('about');
  about.append(WIDTH + ' × ' + HEIGHT + ' pixels. ');
  for (const view of views) {
    about.append('Model '); about.append(isolate(view.model)); about.append(', weights ', make('span', view.hash.slice(0, 16), 'mono'), ', ' + view.cols + ' × ' + view.rows + ' patches, log-probability of the caption ' + view.log_probability.toFixed(2) + '. ');
  }
  about.append('patchword ' + data.version + '.');
  for (const view of views) view.bytes = await unpack(view.cells).catch(() => null);
  for (const view of views) { view.refresh(); view.showRegions(); view.showMatrix(); }
  document.body.dataset.ready = 'true';
}
photo.onload = start; photo.src = data.photo;
