// The page of `patchword inspect` in a real browser: every way to use it, and text that means harm.
//
//   npm install --prefix /tmp/page puppeteer-core axe-core
//   NODE_PATH=/tmp/page/node_modules node tests/inspect_page.cjs target/release/patchword [FOLDER]
//
// Needs Chromium (Debian: apt-get install chromium; CHROMIUM names another program). With FOLDER the pages
// and screenshots stay there, to be looked at. `axe-core` checks accessibility; without it that is skipped and said.
'use strict';
const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { pathToFileURL } = require('node:url');
const puppeteer = require('puppeteer-core');

const [binary, kept] = process.argv.slice(2);
const root = path.join(__dirname, '..');
const folder = kept || fs.mkdtempSync(path.join(os.tmpdir(), 'patchword-page-'));
const at = (...names) => path.join(folder, ...names);
const EVIL = ['</script><img src=x onerror=alert(1)>', '"\'`${1}&amp;', '\u202eright to left', 'अच्छा कुत्ता', '🐕\u200d🦺', 'x'.repeat(300), '<!--', '{{DATA}}'];
const NAME = '</script>"\'&\u202eअ🐕 '.replaceAll('/', '∕') + 'y'.repeat(150) + '.jpg';

function inspect(...words) {
  execFileSync(binary, ['inspect', ...words, '--device', 'flex', '--quiet', '--overwrite'], { stdio: ['ignore', 'ignore', 'inherit'] });
}

/** A page whose captions and names mean harm: the data of a real one, changed, as the program escapes it. */
function poison(from, to) {
  const html = fs.readFileSync(from, 'utf8');
  const [before, rest] = html.split('<script id="data" type="application/json">'), end = rest.indexOf('</script>');
  const data = JSON.parse(rest.slice(0, end));
  data.image = NAME;
  for (const view of data.views) {
    view.model = EVIL[0];
    view.words.forEach((word, place) => { word.text = EVIL[place % EVIL.length]; word.alternatives.forEach((other, k) => { other.text = EVIL[k]; }); });
  }
  const json = JSON.stringify(data).replaceAll('<', '\\u003c').replaceAll('>', '\\u003e').replaceAll('&', '\\u0026');
  fs.mkdirSync(path.dirname(to), { recursive: true });
  fs.writeFileSync(to, before + '<script id="data" type="application/json">' + json + rest.slice(end));
}

async function open(browser, file, { width = 1280, height = 900, dark = false, touch = false } = {}) {
  const page = await browser.newPage(), problems = [];
  page.on('console', message => problems.push(message.text()));
  page.on('pageerror', error => problems.push(error.message));
  page.on('dialog', dialog => { problems.push('a dialog: ' + dialog.message()); dialog.dismiss(); });
  page.on('request', request => { if (!/^(file|data|blob):/.test(request.url())) problems.push('asks for ' + request.url()); });
  await page.setViewport({ width, height, isMobile: touch, hasTouch: touch });
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }]);
  await page.goto(pathToFileURL(file).href);
  await page.waitForSelector('body[data-ready]');
  return { page, problems };
}

const label = page => page.$eval('.photo', canvas => canvas.getAttribute('aria-label'));
const chosen = page => page.$$eval('.words button', buttons => buttons.findIndex(button => button.getAttribute('aria-checked') === 'true'));
const pixels = page => page.$eval('.photo', canvas => canvas.toDataURL());
const ink = page => page.evaluate(() => getComputedStyle(document.body).backgroundColor);

async function words(browser, file) {
  const { page, problems } = await open(browser, file);
  const buttons = await page.$$('.words:not(.phrases) button');
  assert.ok(buttons.length > 3);
  const first = await label(page), before = await chosen(page), other = (before + 2) % buttons.length;
  await buttons[other].hover();
  assert.notEqual(await label(page), first, 'a word that is hovered shows its map');
  await page.mouse.move(2, 2);
  assert.equal(await label(page), first, 'and is gone with the pointer');
  await buttons[other].click();
  await page.mouse.move(2, 2);
  assert.equal(await chosen(page), other, 'a click stays');
  const clicked = await pixels(page);
  await page.keyboard.press('ArrowRight');
  assert.equal(await chosen(page), other + 1, 'arrow keys step');
  assert.notEqual(await pixels(page), clicked);
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute('aria-checked')), 'true', 'and take the focus along');
  await page.keyboard.press('End');
  await page.keyboard.press('Home');
  assert.equal(await chosen(page), 0);
  await page.focus('.photo');
  await page.keyboard.press('ArrowRight');
  assert.equal(await chosen(page), 1, 'from the photo too');
  assert.deepEqual(problems, []);
  await page.close();
}

async function maps(browser, file) {
  const { page, problems } = await open(browser, file);
  const plain = await pixels(page), methods = await page.$$('.methods input');
  assert.ok(methods.length > 1);
  await methods[1].click();
  assert.notEqual(await pixels(page), plain, 'another method, another map');
  await methods[0].click();
  assert.equal(await pixels(page), plain);
  const heads = await page.$$('.heads button');
  assert.ok(heads.length > 0, 'the heads are unpacked');
  await heads[1].click();
  assert.equal(await heads[1].evaluate(button => button.getAttribute('aria-pressed')), 'true');
  assert.match(await page.$eval('.note', note => note.textContent), /layer 0, head 1/);
  assert.notEqual(await pixels(page), plain, 'a head is enlarged over the photo');
  await heads[1].click();
  assert.equal(await pixels(page), plain);
  for (const [id, value] of [['colours', 'cividis'], ['colours', 'spotlight'], ['scale', 'own']]) {
    await page.select('#' + id, value);
    assert.notEqual(await pixels(page), plain, value);
    await page.select('#' + id, id === 'scale' ? 'all' : 'inferno');
  }
  for (const id of ['cells', 'marks']) { await page.click('#' + id); assert.notEqual(await pixels(page), plain, id); await page.click('#' + id); }
  assert.equal(await pixels(page), plain);
  // Outlines aside, opacity 0 is the photo itself.
  await page.$eval('#opacity', input => { input.value = 0; input.dispatchEvent(new Event('input')); });
  assert.notEqual(await pixels(page), plain);
  assert.deepEqual(problems, []);
  await page.close();
}

async function boxes(browser, file) {
  const { page, problems } = await open(browser, file);
  const canvas = await page.$('.photo'), { x, y, width, height } = await canvas.boundingBox();
  await page.mouse.move(x + width * .1, y + height * .2);
  await page.mouse.down();
  await page.mouse.move(x + width * .3, y + height * .5, { steps: 4 });
  await page.mouse.move(x + width * .6, y + height * .9, { steps: 4 });
  await page.mouse.up();
  const shares = () => page.$$eval('.stage .bars tr td.number', cells => cells.map(cell => parseFloat(cell.textContent.replace('< ', ''))));
  const drawn = await shares(), count = (await page.$$('.words:not(.phrases) button')).length;
  assert.equal(drawn.length, count, 'a box ranks every word');
  assert.deepEqual(drawn, [...drawn].sort((a, b) => b - a), 'the most reliant first');
  const size = await page.evaluate(() => data.size);
  assert.ok(Math.abs(await page.$eval('#x0', input => +input.value) - .1 * size[0]) < 4, 'its edges are told in pixels of the photo');
  // The whole photo has the whole of every map that lies on it.
  await page.$eval('#x0', (input, values) => { ['x0', 'y0', 'x1', 'y1'].forEach((id, at) => { document.getElementById(id).value = values[at]; }); }, [0, 0, ...size]);
  await page.click('#box button[type=submit]');
  const whole = await shares();
  assert.ok(whole.every(share => share > 99 || share < .01), String(whole));
  await page.click('.stage .bars button');
  await page.click('#clear');
  assert.equal((await shares()).length, 0);
  await canvas.click();
  assert.equal((await shares()).length, count, 'a click asks for one patch');
  assert.deepEqual(problems, []);
  await page.close();
}

async function looks(browser, file, name) {
  for (const [kind, options] of Object.entries({ light: {}, dark: { dark: true }, phone: { width: 390, height: 844, touch: true, dark: true } })) {
    const { page, problems } = await open(browser, file, options);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), options.width || 1280, kind + ': nothing is wider than the window');
    const paper = await ink(page);
    assert.equal(paper, options.dark ? 'rgb(19, 20, 23)' : 'rgb(255, 255, 255)');
    if (kind === 'light' && await page.$('#theme')) { await page.select('#theme', 'dark'); assert.notEqual(await ink(page), paper, 'the theme can be chosen'); await page.select('#theme', ''); }
    if (kind === 'phone' && await page.$('#draw')) { await page.tap('#draw'); assert.equal(await page.$eval('#draw', button => button.getAttribute('aria-pressed')), 'true'); await page.tap('#draw'); }
    await page.screenshot({ path: at(name + '-' + kind + '.png'), fullPage: true });
    await accessible(page, name + ' ' + kind);
    assert.deepEqual(problems, []);
    await page.close();
  }
}

let axe;
try { axe = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8'); } catch { console.log('accessibility: SKIPPED, no axe-core'); }

async function accessible(page, name) {
  if (!axe) return;
  await page.$$eval('details', all => all.forEach(details => { details.open = true; }));
  await page.evaluate(axe);
  const found = await page.evaluate(async () => (await axe.run()).violations.filter(({ impact }) => impact === 'serious' || impact === 'critical').map(({ id, nodes }) => id + ': ' + nodes.slice(0, 3).map(node => node.html + ' ' + node.any.map(check => check.message).join()).join(' | ')));
  assert.deepEqual(found, [], name);
}

async function harm(browser, file) {
  const { page, problems } = await open(browser, file);
  assert.equal(await page.$('img[src=x]'), null);
  assert.equal(await page.$eval('h1', title => title.textContent), NAME);
  const shown = await page.$$eval('.words:not(.phrases) button', buttons => buttons.map(button => button.textContent));
  shown.forEach((text, place) => assert.equal(text, EVIL[place % EVIL.length]));
  assert.deepEqual(problems, []);
  await page.close();
}

async function pair(browser, file) {
  const { page, problems } = await open(browser, file);
  assert.equal((await page.$$('.view')).length, 2);
  await page.click('.view:nth-child(1) .methods label:nth-of-type(2)');
  assert.equal(await page.$eval('.view:nth-child(2) .methods label:nth-of-type(2) input', radio => radio.checked), true, 'both change');
  assert.deepEqual(problems, []);
  await page.close();
}

async function gallery(browser, file) {
  const { page, problems } = await open(browser, file);
  const names = await page.$$eval('li .quiet', all => all.map(line => line.textContent));
  assert.ok(names.includes(NAME) && names.length === 2, String(names));
  await page.type('#find', 'moose');
  assert.equal((await page.$$('li:not([hidden])')).length, 1);
  await page.click('li:not([hidden]) a');
  await page.waitForSelector('.photo');
  await page.click('#back');
  await page.waitForSelector('#images');
  await page.$$eval('li a', links => links.forEach(link => { if (link.textContent.includes('yyy')) link.id = 'evil'; }));
  await page.click('#evil');
  await page.waitForSelector('body[data-ready] .photo');
  assert.equal(await page.$eval('h1', title => title.textContent), NAME);
  assert.deepEqual(problems, []);
  await page.close();
}

async function main() {
  const photos = path.join(root, 'datasets', 'photos');
  fs.mkdirSync(at('photos'), { recursive: true });
  fs.copyFileSync(path.join(photos, 'cat.jpg'), at('photos', NAME));
  fs.copyFileSync(path.join(photos, 'moose.jpg'), at('photos', 'moose.jpg'));
  inspect(path.join(photos, 'dog.jpg'), '--out', at('one'));
  inspect(path.join(photos, 'musicians.jpg'), '--out', at('pair'), '--compare', 'flickr8k', '--no-evidence');
  inspect(at('photos'), '--out', at('gallery'), '--no-evidence', '--method', 'attention');
  poison(at('one', 'index.html'), at('evil', 'index.html'));
  const browser = await puppeteer.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox', '--allow-file-access-from-files'] });
  try {
    await words(browser, at('one', 'index.html'));
    await maps(browser, at('one', 'index.html'));
    await boxes(browser, at('one', 'index.html'));
    await harm(browser, at('evil', 'index.html'));
    await pair(browser, at('pair', 'index.html'));
    for (const name of ['one', 'pair', 'evil', 'gallery']) await looks(browser, at(name, 'index.html'), name);
    await gallery(browser, at('gallery', 'index.html'));
  } finally {
    await browser.close();
    if (!kept) fs.rmSync(folder, { recursive: true, force: true });
  }
  console.log('the page works: words, maps, boxes, heads, methods, pairs, gallery, themes, phone, text that means harm');
}
main().catch(error => { console.error(error); process.exit(1); });
