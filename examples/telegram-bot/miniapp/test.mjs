// The page's own script, as it stands there, and what the page may load.
// In: index.html beside this file. Out: exit code 0, or the first thing that is amiss.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import vm from "node:vm";

const page = readFileSync(new URL("index.html", import.meta.url), "utf8");
const scripts = [...page.matchAll(/<script(?: id="logic")?>([^]*?)<\/script>/g)].map((found) => found[1]);
assert.equal(scripts.length, 2);
const context = vm.createContext({ atob, btoa, URLSearchParams });
vm.runInContext(scripts[0], context);
new vm.Script(scripts[1]);
const call = (code) => vm.runInContext(code, context);
const plain = (value) => JSON.parse(JSON.stringify(value));

// Nothing comes from elsewhere but Telegram's script, and what the page is given is never markup.
const loaded = [...page.matchAll(/(?:src|href|action)="([^"]*)"/g)].map((found) => found[1]);
assert.deepEqual(loaded, ["https://telegram.org/js/telegram-web-app.js"]);
assert(!/innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|fetch\(/.test(page));
// Every element that the second script asks for is there.
for (const [, id] of scripts[1].matchAll(/of\("(\w+)"\)/g)) assert(page.includes(`id="${id}"`), id);

const digest = `blake3:${"ab".repeat(32)}`;
const fragment = `#job=${digest}&receipt=${digest}&text=${encodeURIComponent("<b>é</b> & so")}`;
assert.deepEqual(plain(call(`answerOf(${JSON.stringify(fragment)})`)), { job: digest, receipt: digest, text: "<b>é</b> & so" });
for (const bad of ["", "#job=x", `#job=${digest}`, `#job=${digest}&receipt=${digest}0`, `#job=${digest}&receipt=javascript:1`])
  assert.equal(call(`answerOf(${JSON.stringify(bad)})`), null, bad);

// TON's zero address in its two forms, and what is not quite an address.
const zero = "EQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAM9c";
for (const [address, good] of [
  [zero, true],
  [zero.replace("M9c", "M9d"), false],
  ["UQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAJKZ", false],
  [zero.slice(1), false],
  [`${zero}?amount=1`, false],
])
  assert.equal(call(`addressProblem(${JSON.stringify(address)})`) === null, good, address);

for (const [text, amount] of [
  ["1", "1000000000"], ["0.000000001", "1"], ["1,5", "1500000000"], ["123456789.123456789", "123456789123456789"],
  ["0", null], ["", null], ["-1", null], ["1e3", null], ["1.0000000001", null],
])
  assert.equal(call(`nanograms(${JSON.stringify(text)})?.toString() ?? null`), amount, text);

// As the layout of a bag of cells has it: magic, sizes, one root cell of 12 bytes, no reference, no checksum.
const link = call(`transfer(${JSON.stringify(zero)}, 5n)`);
const bin = new URL(link).searchParams.get("bin");
const bytes = Buffer.from(bin, "base64url").toString("hex");
assert.equal(bytes, "b5ee9c72" + "01" + "01" + "010100" + "0e" + "00" + "0018" + "54750102" + "0000000000000000");
assert(link.startsWith(`ton://transfer/${zero}?amount=5&bin=`), link);
console.log("the page's script does what it should");
