// What a person sees of a provider in a browser, against one that was started.
// In: TUSSAH_URL, TUSSAH_KEY, the page's password, the models `chat` deployed with prices, TUSSAH_SITE as the daemon's CORS
// origin, the `tussah` binary, a browser, an empty folder. Out: exit code 0, or the first thing that is amiss; a picture
// where TUSSAH_PICTURE names its file. It changes nothing but the provider's ledger.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const given = process.env;
const puppeteer = createRequire(given.TUSSAH_NODE_MODULES + "/")("puppeteer-core");
const [url, site, work] = [given.TUSSAH_URL, given.TUSSAH_SITE, given.TUSSAH_WORK];
const host = new URL(url).host;
const bearer = { Authorization: `Bearer ${given.TUSSAH_KEY}`, "Content-Type": "application/json" };
const PHONE = { width: 360, height: 740, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
const DESK = { width: 1080, height: 900 };

const step = (text) => console.log(`page: ${text}`);

const chat = async (text, more, signal) => {
  const body = { model: "chat", messages: [{ role: "user", content: text }], temperature: 0, max_tokens: 40, ...more };
  const options = { method: "POST", headers: bearer, body: JSON.stringify(body), signal };
  const answer = await fetch(`${url}/v1/chat/completions`, options);
  assert.equal(answer.status, 200, `the provider answered ${answer.status}`);
  return answer;
};

const browser = await puppeteer.launch({
  executablePath: execFileSync("sh", ["-c", 'command -v "$0"', given.TUSSAH_BROWSER], { encoding: "utf8" }).trim(),
  userDataDir: path.join(work, "profile"),
  args: [
    // Chromium's own sandbox is not to be had by root.
    ...(process.getuid() === 0 ? ["--no-sandbox"] : []),
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    // Chromium asks the person before a page from elsewhere reaches this machine; here nobody is asked.
    "--disable-features=LocalNetworkAccessChecks",
    // Whatever would leave this machine finds no address.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE *.localhost",
  ],
});

/** A tab that notes what it was told, and where it wanted to go. */
const open = async (viewport, answer) => {
  const tab = await browser.newPage();
  const seen = { tab, complaints: [], hosts: new Set() };
  await tab.setViewport(viewport);
  tab.setDefaultTimeout(30_000);
  tab.on("console", (message) => {
    if (["error", "warn"].includes(message.type())) seen.complaints.push(`${message.text()} (${message.location().url})`);
  });
  tab.on("pageerror", (error) => seen.complaints.push(String(error)));
  if (answer) await tab.setRequestInterception(true);
  tab.on("request", (request) => {
    const asked = new URL(request.url());
    if (asked.host) seen.hosts.add(asked.host);
    if (answer) answer(request, asked);
  });
  return seen;
};

const text = (tab, id) => tab.$eval(`#${id}`, (element) => element.textContent.trim());
const shows = (tab, id) => tab.$eval(`#${id}`, (element) => element.checkVisibility());
/** Waits until `#id` reads so. */
const reads = async (tab, id, pattern) => {
  const said = (id, source) => new RegExp(source).test(document.getElementById(id).textContent);
  await tab.waitForFunction(said, {}, id, pattern.source).catch(async () => {
    assert.fail(`#${id} reads "${await text(tab, id)}", not ${pattern}`);
  });
};
const visible = (tab, id) => tab.waitForSelector(`#${id}`, { visible: true });
const list = (tab, id) =>
  tab.$eval(`#${id}`, (list) => {
    const names = [...list.querySelectorAll("dt")];
    return Object.fromEntries(names.map((name) => [name.textContent, name.nextElementSibling.textContent]));
  });
const rows = (tab) =>
  tab.$$eval("#jobs tr", (rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent)));
/** "1.25 GRAM" in nanograms. */
const nanograms = (shown) => {
  const [, whole, part] = /^(\d+)(?:\.(\d{1,9}))? GRAM\b/.exec(shown) ?? assert.fail(`"${shown}" is no amount`);
  return BigInt(whole) * 10n ** 9n + BigInt((part ?? "").padEnd(9, "0"));
};
const verified = (file, ...more) =>
  execFileSync(given.TUSSAH_BIN, ["receipt", "verify", file, ...more], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
/** Nothing lies beside the window but what a table of its own width is pushed for. */
const fits = async (tab, width) => {
  const [page, outside] = await tab.evaluate(() => {
    const hidden = (element) => element.closest(".scroll") && !element.matches(".scroll");
    const all = [...document.body.querySelectorAll("*")].filter((element) => element.checkVisibility() && !hidden(element));
    const far = all.filter((element) => element.getBoundingClientRect().right > innerWidth + 1);
    return [document.documentElement.scrollWidth, far.map((element) => element.outerHTML.slice(0, 80))];
  });
  assert.deepEqual(outside, [], "beside the window");
  assert(page <= width, `the page is ${page} wide, the window ${width}`);
};

const firsts = [];
for (const question of ["What is silk made of?", "What does a silkworm eat?"]) firsts.push(await (await chat(question)).json());

step("logging in");
const desk = await open(DESK);
const { tab } = desk;
await tab.goto(`${url}/`);
assert.equal(new URL(tab.url()).pathname, "/page");
assert.equal(await tab.title(), "Tussah provider");
await visible(tab, "login");
assert.equal(await shows(tab, "page"), false, "the page shows before the login");
await reads(tab, "hint", /shown once/);
await tab.type("#password", "not the password");
await tab.click("#enter");
await reads(tab, "refused", /^this is not the password$/);
assert.equal(await shows(tab, "page"), false, "a wrong password opens the page");
// The browser itself says that this one was refused.
const refused = desk.complaints.splice(0);
assert(refused.length === 1 && /401.*\/page\/login/.test(refused[0]), String(refused));
await tab.$eval("#password", (field) => (field.value = ""));
await tab.type("#password", given.TUSSAH_PASSWORD);
await tab.keyboard.press("Enter");
await visible(tab, "page");
assert.equal(await shows(tab, "login"), false);

step("queue, rates, worker, earnings, jobs");
await reads(tab, "state-text", /^Ready$/);
await reads(tab, "uptime", /^up for \d/);
await reads(tab, "running", /^0$/);
await reads(tab, "running-max", /^of [1-9]\d*$/);
await reads(tab, "waiting", /^0$/);
await reads(tab, "waiting-max", /^of [1-9]\d*$/);
await reads(tab, "jobs-rate", /^(?!0\.0$)\d+(\.\d)?$/);
await reads(tab, "tokens-rate", /^(?!0\.0$)\d+(\.\d)?$/);
// The line begins once its first few seconds are over.
const rises = (id) => document.querySelector(`#${id} path`)?.getBBox().height > 1;
for (const chart of ["jobs-chart", "tokens-chart"]) await tab.waitForFunction(rises, {}, chart);
await reads(tab, "device", /cpu/i);
await reads(tab, "isolation", /\w/);
await reads(tab, "memory", /^\d+\.\d MiB$/);
await reads(tab, "connections", /^[1-9]\d* open, 0 refused, 0 too slow$/);
const counts = await list(tab, "counts");
assert.deepEqual([counts.Accepted, counts.Done, counts.Failed, counts["Workers lost"]], ["2", "2", "0", "0"]);
const tokens = firsts.reduce((sum, { usage }) => [sum[0] + usage.prompt_tokens, sum[1] + usage.completion_tokens], [0, 0]);
assert.equal(counts.Tokens, `${tokens[0]} read, ${tokens[1]} generated`);

const listed = await rows(tab);
assert.equal(listed.length, 2);
const ids = firsts.map((answer) => answer.tussah.job_id.replace("blake3:", "").slice(0, 12)).reverse();
listed.forEach(([, status, receipt, model, took, price, job], index) => {
  assert.deepEqual([status, receipt, model, job], ["done", "download", "chat", ids[index]]);
  assert(/^\d/.test(took), took);
  assert(nanograms(price) >= 1_000_000n, price);
});
const sum = listed.reduce((sum, row) => sum + nanograms(row[5]), 0n);
await reads(tab, "earned", /2 jobs/);
const earned = await list(tab, "earned");
// Jobs that ended on both sides of midnight are two days' earnings, and one month's.
assert.equal(nanograms(earned["30 days"]), sum);
assert(earned["30 days"].endsWith(", 2 jobs"), earned["30 days"]);
assert.equal(nanograms(earned["of that on credit"]), sum);
assert.equal(nanograms(earned["through channels"]), 0n);
assert.equal(await tab.$$eval("#earned-chart rect", (bars) => bars.length), 30);

step("receipts");
const control = await browser.target().createCDPSession();
await control.send("Browser.setDownloadBehavior", { behavior: "allow", downloadPath: work, eventsEnabled: true });
for (const id of ids) {
  const ended = new Promise((done) =>
    control.on("Browser.downloadProgress", ({ state }) => state !== "inProgress" && done(state)),
  );
  await tab.click(`a[download="receipt-${id}.cbor"]`);
  assert.equal(await ended, "completed");
  const file = path.join(work, `receipt-${id}.cbor`);
  assert(existsSync(file), `${file} was not downloaded`);
  // As the page says that it is checked.
  const [program, ...command] = (await text(tab, "verify")).split(" ");
  assert.deepEqual([program, command.slice(0, 3)], ["tussah", ["receipt", "verify", `receipt-${id}.cbor`]]);
  assert.match(command[4] ?? "", /^ed25519:/);
  verified(file, ...command.slice(3));
}

step("what changes is seen");
const leaving = new AbortController();
const running = await chat("Tell me a very long story of a silk moth.", { stream: true, max_tokens: 1500 }, leaving.signal);
const pieces = running.body.getReader();
await pieces.read();
await reads(tab, "running", /^1$/);
assert.equal((await rows(tab))[0][1], "running");
leaving.abort();
await reads(tab, "running", /^0$/);
await reads(tab, "jobs", /cancelled/);
assert.equal((await rows(tab)).length, 3);
await tab.waitForSelector("#stale", { hidden: true });
if (given.TUSSAH_PICTURE) await tab.screenshot({ path: given.TUSSAH_PICTURE, fullPage: true });

step("the same on a phone");
const phone = await open(PHONE);
await phone.tab.goto(`${url}/page`);
// A browser logs in once for all its tabs.
await visible(phone.tab, "page");
await reads(phone.tab, "jobs", /done/);
await fits(phone.tab, PHONE.width);
// The table alone is pushed to and fro.
assert(await phone.tab.$eval(".scroll", (table) => table.scrollWidth > table.clientWidth));

step("logging out");
await phone.tab.tap("#logout");
await visible(phone.tab, "login");
await fits(phone.tab, PHONE.width);
assert.deepEqual(await rows(phone.tab), [], "jobs are left behind");
// The other tab finds out when it is looked at.
await tab.bringToFront();
await visible(tab, "login");
assert.deepEqual(await rows(tab), [], "jobs are left behind");
const out = desk.complaints.splice(0);
assert(out.every((complaint) => /401.*\/page\/status/.test(complaint)), String(out));
assert.deepEqual(phone.complaints, [], "the browser complains");
for (const { hosts } of [desk, phone]) assert.deepEqual([...hosts], [host]);

step("the page of examples/telegram-bot");
const file = new URL("../../examples/telegram-bot/miniapp/index.html", import.meta.url);
const bot = await open(PHONE, (request, asked) => {
  if (asked.origin !== site) request[asked.host === host ? "continue" : "abort"]();
  else if (asked.pathname === "/api.html") request.respond({ contentType: "text/html", body: "<!doctype html><link rel=icon href=data:,>" });
  else request.respond({ contentType: "text/html; charset=utf-8", body: readFileSync(file) });
});
const summary = firsts[0].choices[0].message.content;
const { job_id: job, receipt } = firsts[0].tussah;
// As the bot writes it below its answers.
await bot.tab.goto(`${site}/index.html#job=${job}&receipt=${receipt}&text=${encodeURIComponent(summary)}`);
await visible(bot.tab, "answer");
assert.equal(await text(bot.tab, "text"), summary.trim());
assert.deepEqual([await text(bot.tab, "job"), await text(bot.tab, "receipt")], [job, receipt]);
const commands = (await text(bot.tab, "commands")).split("\n");
const [, place] = / PROVIDER(\S+)$/.exec(commands[0]) ?? assert.fail(commands[0]);
const answer = await fetch(url + place, { headers: { ...bearer, Accept: "application/octet-stream" } });
assert.equal(answer.status, 200);
const kept = path.join(work, "r.cbor");
writeFileSync(kept, Buffer.from(await answer.arrayBuffer()));
assert.equal(commands[1], "tussah receipt verify r.cbor");
verified(kept);
const known = JSON.parse(execFileSync(given.TUSSAH_BIN, ["receipt", "show", kept, "--json"], { encoding: "utf8" }));
const view = await (await fetch(`${url}/v1/jobs/${job}`, { headers: bearer })).json();
assert.deepEqual([known.consensus.job, view.receipt], [job, receipt]);
await bot.tab.type("#address", "EQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAM9c");
await visible(bot.tab, "pay");
const pay = new URL(await bot.tab.$eval("#pay", (link) => link.href));
assert.deepEqual([pay.protocol, pay.host, pay.pathname, pay.searchParams.get("amount")],
  ["ton:", "transfer", "/EQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAM9c", "1000000000"]);
await fits(bot.tab, PHONE.width);
// Telegram's own script is all that it asks others for, and it does without.
assert.deepEqual([...bot.hosts].sort(), [new URL(site).host, "telegram.org"].sort());
const lacking = bot.complaints.splice(0);
assert(lacking.every((complaint) => complaint.includes("telegram-web-app.js")), String(lacking));

step("a page of the origin that may use the API, and one that may not");
const ask = (tab) =>
  tab.evaluate(async (url, headers) => {
    try {
      return (await fetch(`${url}/v1/models`, { headers })).status;
    } catch {
      return "kept from it";
    }
  }, url, bearer);
await bot.tab.goto(`${site}/api.html`);
const answered = await ask(bot.tab);
assert.deepEqual([answered, bot.complaints], [200, []]);
const stranger = await open(DESK, (request, asked) => {
  if (asked.host === host) request.continue();
  else request.respond({ contentType: "text/html", body: "<!doctype html><link rel=icon href=data:,>" });
});
await stranger.tab.goto("http://elsewhere.localhost/");
assert.equal(await ask(stranger.tab), "kept from it");
assert.match(stranger.complaints.join(), /CORS policy/);

await browser.close();
console.log("a browser sees what it should");
