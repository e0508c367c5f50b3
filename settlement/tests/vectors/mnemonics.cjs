// Says what npm `@ton/crypto` makes of mnemonics. It wrote mnemonics.json, of 20 it drew itself.
// Usage: NODE_PATH=node_modules node mnemonics.cjs [FILE]; with the words and passwords of FILE.
const fs = require("fs");
const { mnemonicNew, mnemonicToPrivateKey, mnemonicValidate } = require("@ton/crypto");

async function drawn() {
  const vectors = [];
  for (let number = 0; number < 20; number++) {
    const password = number % 5 === 4 ? `password ${number}` : "";
    vectors.push({ words: (await mnemonicNew(24, password)).join(" "), password });
  }
  return vectors;
}

async function main() {
  const file = process.argv[2];
  const given = file ? JSON.parse(fs.readFileSync(file, "utf-8")) : await drawn();
  const vectors = [];
  for (const { words, password } of given) {
    const list = words.split(" ");
    const pair = await mnemonicToPrivateKey(list, password);
    vectors.push({
      words,
      password,
      valid: await mnemonicValidate(list, password),
      public_key: pair.publicKey.toString("hex"),
      secret: pair.secretKey.subarray(0, 32).toString("hex"),
    });
  }
  console.log(JSON.stringify(vectors, null, 1));
}
main().catch((error) => { console.error(error); process.exit(1); });
