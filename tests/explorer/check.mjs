// Drives the explorer's pages in Chromium: check.py beside this file makes them and calls it.
//
//     node check.mjs FOLDER [SCREENSHOTS]
//
// FOLDER holds the pages and expected.json; with SCREENSHOTS the pictures of docs/explorer.md are
// taken into that folder. Prints one line for each check; the exit status is 1 if one fails.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(process.cwd() + "/");
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [folder, pictures] = process.argv.slice(2);
const expected = JSON.parse(readFileSync(`${folder}/expected.json`, "utf8"));
let failed = 0;

function check(what, good, detail = "") {
  console.log(`${good ? "ok    " : "FAILED"} ${what}${good ? "" : `: ${detail}`}`);
  if (!good) failed += 1;
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu"],
});

async function open(name, options = {}) {
  const context = await browser.newContext({
    viewport: { width: 1180, height: 820 },
    ...options,
  });
  const page = await context.newPage();
  page.problems = [];
  page.requests = [];
  page.on("console", (m) => m.type() === "error" && page.problems.push(m.text()));
  page.on("pageerror", (error) => page.problems.push(String(error)));
  page.on("request", (r) => !r.url().startsWith("data:") && page.requests.push(r.url()));
  const began = Date.now();
  await page.goto(`file://${folder}/${name}.html`);
  if (options.javaScriptEnabled !== false) await page.waitForSelector("#boxes button");
  page.opened = Date.now() - began;
  return page;
}

async function violations(page) {
  await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run());
  return found.violations.map((v) => `${v.id} (${v.nodes.length}): ${v.nodes[0].html}`);
}

// As wide as readers see it.
async function picture(page, name) {
  if (!pictures) return;
  const before = page.viewportSize();
  await page.setViewportSize({ width: 900, height: 700 });
  await page.waitForTimeout(200);
  await page.screenshot({ path: `${pictures}/${name}.png` });
  await page.setViewportSize(before);
}

// The gradients that the table shows are those of a step-through in Python.
async function checkGradients(page, name) {
  await page.click("#as-table");
  const rows = await page.$$eval("#table-rows tr", (all) =>
    all.map((row) => [...row.children].map((cell) => cell.textContent)),
  );
  const { ops, leaves } = expected[name];
  const shown = rows
    .filter((row) => row[6] !== "" && !leaves.includes(row[1]))
    .map((row) => [row[1], Number(row[6])]);
  const wanted = ops.slice(0, shown.length);
  const wrong = wanted.findIndex(
    ([op, norm], i) => shown[i][0] !== op || Math.abs(shown[i][1] - norm) > 2e-3 * norm,
  );
  check(`${name}: gradients`, shown.length > 5 && wrong < 0, JSON.stringify([shown, wanted]));
  await page.click("#as-table");
}

async function checkKeys(page) {
  await page.focus("#graph");
  const now = () => page.textContent("#where-now");
  const end = await now();
  await page.keyboard.press("ArrowLeft");
  const before = await now();
  check("keys: left goes back", before !== end && before.startsWith("backward"), before);
  await page.keyboard.press("ArrowRight");
  check("keys: right goes on", (await now()) === end, await now());
  await page.click("#first");
  check("player: the start", (await now()) === "before the forward pass", await now());
  await page.keyboard.press("ArrowRight");
  check("player: forward", (await now()).startsWith("forward 1 of"), await now());
  const strips = await page.$$eval(".strip.gradient", (all) => all.map((s) => s.textContent));
  check("player: not reached yet", strips.includes("not reached yet"), strips.join());
  await page.click("#last");
  await page.$eval("#graph", (graph) => (graph.scrollLeft = 0));
  await page.waitForTimeout(100);
  await page.focus(".folded");
  await page.keyboard.press("Enter");
  check("keys: Enter opens", (await page.$$(".fold")).length === 1);
  await page.keyboard.press("/");
  await page.keyboard.type("tanh");
  const found = await page.textContent("#results .count");
  check("keys: / searches", /\d+ found|the first/.test(found), found);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  const title = await page.textContent("#panel-title");
  check("keys: a result is chosen", title.startsWith("tanh"), title);
  const panel = await page.textContent("#facts");
  check("panel: the rule", panel.includes("dx = dy (1 - y^2)"), panel);
}

for (const scheme of ["light", "dark"]) {
  for (const name of ["diamond", "loop", "trained", "hostile", "recorded"]) {
    const page = await open(name, { colorScheme: scheme, reducedMotion: "reduce" });
    check(`${name}, ${scheme}: one request`, page.requests.length === 1, page.requests.join());
    const bad = await violations(page);
    check(`${name}, ${scheme}: accessible`, bad.length === 0, bad.join("\n"));
    await page.click("#as-table");
    const table = await violations(page);
    check(`${name}, ${scheme}: accessible as a table`, table.length === 0, table.join("\n"));
    await page.click("#as-table");
    check(`${name}, ${scheme}: no errors`, page.problems.length === 0, page.problems.join());
    if (scheme === "light") {
      if (["diamond", "loop", "trained"].includes(name)) await picture(page, `explorer_${name}`);
      if (expected[name]) await checkGradients(page, name);
    }
    await page.context().close();
  }
}

{
  const page = await open("loop");
  await checkKeys(page);
  await picture(page, "explorer_open");
  check("loop: no errors", page.problems.length === 0, page.problems.join());
  await page.context().close();
}
{
  const page = await open("hostile");
  await page.focus("#graph");
  await page.keyboard.press("b");
  const now = await page.textContent("#where-now");
  check("keys: b finds what is not finite", now.includes("log"), now);
  const injected = await page.evaluate(() => window.injected);
  check("hostile names stay text", injected === undefined);
  await page.context().close();
}
{
  const page = await open("diamond", { javaScriptEnabled: false });
  check("without JavaScript: a picture", await page.isVisible("noscript svg"));
  check("without JavaScript: a table", await page.isVisible("noscript table"));
  await page.context().close();
}
{
  const page = await open("large");
  let worst = 0;
  for (let i = 0; i < 100; i++) {
    await page.$eval("#graph", (graph, k) => (graph.scrollLeft = k * 10000), i);
    await page.waitForTimeout(10);
    worst = Math.max(worst, await page.evaluate(() => window.lastFrame));
  }
  console.log(`large: opened in ${page.opened} ms, slowest frame ${worst.toFixed(1)} ms`);
  check("large: opens in 5 s", page.opened < 5000, page.opened);
  check("large: frames below 50 ms", worst < 50, worst);
  await page.context().close();
}
await browser.close();
console.log(`explorer: ${failed} failures`);
process.exit(failed ? 1 : 0);
