// Writes wallets.json: what npm `@ton/ton` 16.3.0 makes of 20 seeds and both wallet versions.
// Usage: NODE_PATH=node_modules node wallets.cjs > wallets.json
const { WalletContractV4, WalletContractV5R1, internal } = require("@ton/ton");
const { keyPairFromSeed } = require("@ton/crypto");
const { Address, beginCell, storeStateInit } = require("@ton/core");

const vectors = [];
for (let number = 0; number < 20; number++) {
  const seed = Buffer.alloc(32, number + 1);
  seed[31] = 200 - number;
  const { publicKey, secretKey } = keyPairFromSeed(seed);
  const messages = [
    internal({
      to: Address.parseRaw("0:" + "ab".repeat(32)),
      value: 1500000000n,
      bounce: true,
      body: beginCell().storeUint(0x54750102, 32).storeUint(7, 64).endCell(),
    }),
    internal({ to: Address.parseRaw("-1:" + "cd".repeat(32)), value: 1n, bounce: false }),
  ];
  for (const [version, contract] of [["v4r2", WalletContractV4], ["v5r1", WalletContractV5R1]]) {
    const wallet = contract.create({ workchain: 0, publicKey });
    const seqno = 5 + number;
    const transfer = wallet.createTransfer({ seqno, secretKey, sendMode: 3, timeout: 1800000060, messages });
    vectors.push({
      version,
      seed: seed.toString("hex"),
      address: wallet.address.toRawString(),
      user_friendly: wallet.address.toString({ bounceable: false }),
      state_init: beginCell().store(storeStateInit(wallet.init)).endCell().hash().toString("hex"),
      seqno,
      transfer: transfer.hash().toString("hex"),
    });
  }
}
console.log(JSON.stringify(vectors, null, 1));
