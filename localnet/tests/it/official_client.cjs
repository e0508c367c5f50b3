// The official client, npm `@ton/ton`, against a localnet: it opens, tops up, redeems and closes
// channels. Everything that is ours is written here once more from contracts/messages.tolk: cells,
// signatures, and the tree of receipts as RFC 6962 has it.
// Usage: node official_client.cjs URL CODE, with the packages where NODE_PATH says. URL is
// toncenter's root, CODE the channel's compiled code. It prints one line a step.
const assert = require("assert");
const fs = require("fs");
const { createHash } = require("crypto");
const { TonClient, WalletContractV4, WalletContractV5R1 } = require("@ton/ton");
const core = require("@ton/core");
const { keyPairFromSeed, sign } = require("@ton/crypto");

const { Address, Cell, SendMode, beginCell, contractAddress, internal, toNano } = core;
const [url, codeFile] = process.argv.slice(2);
const root = url.replace(/\/api\/v2$/, "");
const client = new TonClient({ endpoint: `${url}/jsonRPC` });
const NETWORK = 0x54757373;
const [VOUCHER_TAG, REDEEM_TAG, CLOSE_TAG] = [0x54750001, 0x54750002, 0x54750003];
const CHALLENGE = 600;

const say = (line) => console.log(line);
const uint = (bytes) => BigInt("0x" + bytes.toString("hex"));
const keys = (number) => keyPairFromSeed(Buffer.alloc(32, number));
const local = async (path, body) => {
  const headers = { "content-type": "application/json" };
  const options = body ? { method: "POST", headers, body: JSON.stringify(body) } : {};
  return (await fetch(root + path, options)).json();
};
const faucet = async (address, amount) => {
  const answer = await local("/localnet/faucet", { address: address.toString(), amount: amount.toString() });
  assert(answer.ok, JSON.stringify(answer));
};

// RFC 6962, section 2.1, with SHA-256.
const sha256 = (...parts) => createHash("sha256").update(Buffer.concat(parts)).digest();
const split = (count) => 2 ** Math.floor(Math.log2(count - 1));
const treeRoot = (receipts) => {
  if (receipts.length === 0) return sha256(Buffer.alloc(0));
  if (receipts.length === 1) return sha256(Buffer.from([0]), receipts[0]);
  const left = split(receipts.length);
  return sha256(Buffer.from([1]), treeRoot(receipts.slice(0, left)), treeRoot(receipts.slice(left)));
};
const treePath = (receipts, index) => {
  if (receipts.length === 1) return [];
  const left = split(receipts.length);
  return index < left
    ? [...treePath(receipts.slice(0, left), index), treeRoot(receipts.slice(left))]
    : [...treePath(receipts.slice(left), index - left), treeRoot(receipts.slice(0, left))];
};
// Up to three hashes a cell, the nearest to the leaf first.
const pathCell = (path) => {
  const builder = beginCell();
  path.slice(0, 3).forEach((hash) => builder.storeBuffer(hash));
  if (path.length > 3) builder.storeRef(pathCell(path.slice(3)));
  return builder.endCell();
};

const clientKeys = keys(1), ownerKeys = keys(2), hotKeys = keys(3);
const clientWallet = client.open(WalletContractV5R1.create({
  publicKey: clientKeys.publicKey,
  walletId: { networkGlobalId: NETWORK },
}));
const ownerWallet = client.open(WalletContractV4.create({ workchain: 0, publicKey: ownerKeys.publicKey }));

const send = async (wallet, secretKey, to, value, body, init) => {
  await wallet.sendTransfer({
    seqno: await wallet.getSeqno(),
    secretKey,
    sendMode: SendMode.PAY_GAS_SEPARATELY,
    messages: [internal({ to, value, body, init, bounce: true })],
  });
};
const byClient = (to, value, body, init) => send(clientWallet, clientKeys.secretKey, to, value, body, init);
const byOwner = (to, value, body) => send(ownerWallet, ownerKeys.secretKey, to, value, body);

class Channel {
  constructor(salt) {
    const terms = beginCell()
      .storeAddress(clientWallet.address)
      .storeAddress(ownerWallet.address)
      .storeBuffer(clientKeys.publicKey)
      .storeUint(CHALLENGE, 32)
      .storeCoins(toNano("0.01"))
      .storeUint(salt, 64)
      .endCell();
    const side = beginCell().storeBuffer(hotKeys.publicKey).storeAddress(ownerWallet.address).endCell();
    const data = beginCell()
      .storeUint(0, 2).storeBit(false).storeUint(0, 32)
      .storeCoins(0).storeCoins(0).storeCoins(0)
      .storeUint(0, 64).storeUint(0, 256).storeUint(0, 256)
      .storeRef(terms).storeRef(side)
      .endCell();
    this.init = { code: Cell.fromBoc(fs.readFileSync(codeFile))[0], data };
    this.address = contractAddress(0, this.init);
    this.receipts = [];
  }

  plain(op) {
    return beginCell().storeUint(op, 32).storeUint(1, 64).endCell();
  }

  async open(value, expiresAt) {
    const body = beginCell().storeUint(0x54750101, 32).storeUint(1, 64)
      .storeUint(12345, 256).storeUint(expiresAt, 32).endCell();
    await byClient(this.address, value, body, this.init);
    this.incarnation = (await this.state()).incarnation;
  }

  async state() {
    const { stack } = await client.runMethod(this.address, "channel_state");
    return {
      status: stack.readNumber(),
      payoutBounced: stack.readBoolean(),
      deadline: stack.readNumber(),
      rentReserve: stack.readBigNumber(),
      redeemed: stack.readBigNumber(),
      owed: stack.readBigNumber(),
      receipts: stack.readNumber(),
      root: stack.readBigNumber(),
      incarnation: stack.readBigNumber(),
    };
  }

  promise(tag, amount) {
    return beginCell()
      .storeUint(tag, 32)
      .storeInt(NETWORK, 32)
      .storeAddress(this.address)
      .storeUint(this.incarnation, 256)
      .storeUint(amount, 64)
      .storeUint(this.receipts.length, 64)
      .storeBuffer(treeRoot(this.receipts))
      .endCell().hash();
  }

  signed(op, amount, bySender, byProvider) {
    return beginCell()
      .storeUint(op, 32)
      .storeBuffer(byProvider)
      .storeUint(amount, 64)
      .storeUint(this.receipts.length, 64)
      .storeBuffer(treeRoot(this.receipts))
      .storeRef(beginCell().storeBuffer(bySender).endCell())
      .endCell();
  }

  redeemBody(amount) {
    const hash = this.promise(VOUCHER_TAG, amount);
    const consent = beginCell().storeUint(REDEEM_TAG, 32).storeBuffer(hash).endCell().hash();
    return this.signed(0x54750103, amount, sign(hash, clientKeys.secretKey), sign(consent, hotKeys.secretKey));
  }

  async redeem(amount) {
    await client.sendExternalMessage({ address: this.address, init: null }, this.redeemBody(amount));
  }

  closeBody(amount) {
    const hash = this.promise(CLOSE_TAG, amount);
    return this.signed(0x54750105, amount, sign(hash, clientKeys.secretKey), sign(hash, hotKeys.secretKey));
  }

  receipt(count) {
    for (let i = 0; i < count; i++) this.receipts.push(sha256(Buffer.from(`receipt ${this.receipts.length}`)));
  }
}

const refused = async (promise, words) => {
  const error = await promise.then(() => null, (error) => error);
  assert(error, `expected: ${words}`);
  assert.strictEqual(error.response.status, 500);
  assert(error.response.data.error.includes(words), error.response.data.error);
};

async function closedByAgreement(now) {
  const channel = new Channel(1);
  assert.strictEqual(await client.isContractDeployed(channel.address), false);
  await channel.open(toNano("2"), now + 86400);
  let state = await channel.state();
  assert.deepStrictEqual([state.status, state.deadline, state.receipts], [1, now + 86400, 0]);
  say("opened by a V5R1 wallet");

  await byOwner(channel.address, toNano("1"), channel.plain(0x54750102));
  const capacity = (await client.runMethod(channel.address, "channel_capacity")).stack.readBigNumber();
  assert(capacity > toNano("2.9") && capacity < toNano("3"), capacity.toString());
  say("topped up by a V4R2 wallet");

  channel.receipt(5);
  const amount = toNano("0.4");
  const args = [amount, BigInt(channel.receipts.length), uint(treeRoot(channel.receipts))];
  const hash = await client.runMethod(channel.address, "voucher_hash", args.map((value) => ({ type: "int", value })));
  assert.strictEqual(hash.stack.readBigNumber(), uint(channel.promise(VOUCHER_TAG, amount)));
  await channel.redeem(amount);
  state = await channel.state();
  assert.strictEqual(state.redeemed, amount);
  assert.strictEqual(state.root, uint(treeRoot(channel.receipts)));
  assert(state.owed < amount && state.owed > amount - toNano("0.001"));
  for (let index = 0; index < 5; index++) {
    const answer = await client.runMethod(channel.address, "verify_inclusion", [
      { type: "int", value: uint(channel.receipts[index]) },
      { type: "int", value: BigInt(index) },
      { type: "cell", cell: pathCell(treePath(channel.receipts, index)) },
    ]);
    assert.strictEqual(answer.stack.readBoolean(), true);
  }
  const wrong = await client.runMethodWithError(channel.address, "verify_inclusion", [
    { type: "int", value: uint(channel.receipts[0]) },
    { type: "int", value: 9n },
    { type: "cell", cell: pathCell(treePath(channel.receipts, 0)) },
  ]);
  assert.strictEqual(wrong.exit_code, 416);
  say("redeemed with both signatures, five receipts proven");

  await refused(channel.redeem(amount), "exitcode=410, AmountNotMore");
  const forged = channel.closeBody(amount);
  await refused(client.sendExternalMessage({ address: channel.address, init: null }, forged), "exitcode=");

  const before = await client.getBalance(ownerWallet.address);
  const withdraw = beginCell().storeUint(0x54750104, 32).storeUint(1, 64).storeBit(true).endCell();
  await byOwner(channel.address, toNano("0.05"), withdraw);
  const paid = (await client.getBalance(ownerWallet.address)) - before;
  assert(paid > state.owed - toNano("0.01") && paid < state.owed, paid.toString());
  assert.strictEqual((await channel.state()).owed, 0n);
  say("withdrawn to the provider");

  channel.receipt(1);
  await byOwner(channel.address, toNano("0.05"), channel.closeBody(toNano("0.5")));
  state = await channel.state();
  assert.deepStrictEqual([state.status, state.redeemed, state.owed, state.receipts], [3, toNano("0.5"), toNano("0.1"), 6]);
  const clientBefore = await client.getBalance(clientWallet.address);
  await byClient(channel.address, toNano("0.05"), channel.plain(0x54750107));
  const refunded = (await client.getBalance(clientWallet.address)) - clientBefore;
  // Of three grams half a gram is the provider's, and the reserve stays while it is owed.
  const rest = toNano("2.5") - state.rentReserve;
  assert(refunded > rest - toNano("0.02") && refunded < rest, `${refunded} of ${rest}`);
  say("closed by agreement, refunded");
  return channel;
}

async function closedByWindow(now) {
  const channel = new Channel(2);
  await channel.open(toNano("1"), now + 86400);
  channel.receipt(1);
  await channel.redeem(toNano("0.1"));
  await byClient(channel.address, toNano("0.05"), channel.plain(0x54750106));
  assert.strictEqual((await channel.state()).status, 2);
  channel.receipt(2);
  await channel.redeem(toNano("0.25"));
  assert.strictEqual((await channel.state()).redeemed, toNano("0.25"));
  say("a newer voucher is taken within the challenge window");

  const moved = await local("/localnet/advance", { seconds: CHALLENGE });
  assert(moved.ok);
  channel.receipt(1);
  await refused(channel.redeem(toNano("0.3")), "exitcode=403, TooLate");
  const before = await client.getBalance(clientWallet.address);
  await byClient(channel.address, toNano("0.05"), channel.plain(0x54750107));
  const state = await channel.state();
  const refunded = (await client.getBalance(clientWallet.address)) - before;
  const rest = toNano("0.75") - state.rentReserve;
  assert(refunded > rest - toNano("0.02") && refunded < rest, `${refunded} of ${rest}`);
  assert.strictEqual(state.status, 3);
  say("closed by the window, refunded");
}

async function history(channel) {
  const all = await client.getTransactions(channel.address, { limit: 100 });
  const ops = all.map((transaction) => {
    const body = transaction.inMessage.body.beginParse();
    return (body.loadUint(32) & 0xffff).toString(16);
  });
  assert.deepStrictEqual(ops.reverse(), ["101", "102", "103", "104", "105", "107"]);
  const paged = [];
  let from = (await client.getContractState(channel.address)).lastTransaction;
  for (let inclusive = true; ; inclusive = false) {
    const page = await client.getTransactions(channel.address, { limit: 2, ...from, inclusive });
    if (page.length === 0) break;
    paged.push(...page);
    const last = page[page.length - 1];
    from = { lt: last.lt.toString(), hash: last.hash().toString("base64") };
  }
  assert.deepStrictEqual(paged.map((t) => t.lt), all.map((t) => t.lt));
  const one = await client.getTransaction(channel.address, from.lt, from.hash);
  assert.strictEqual(one.hash().toString("base64"), from.hash);
  const [message] = paged[0].outMessages.values();
  const found = await client.tryLocateResultTx(channel.address, clientWallet.address, message.info.createdLt.toString());
  assert.strictEqual(found.inMessage.info.value.coins, message.info.value.coins);
  say("transactions in order, page by page, and found by their messages");

  const info = await client.getMasterchainInfo();
  let transactions = 0;
  for (let seqno = info.initSeqno; seqno <= info.latestSeqno; seqno++) {
    for (const shard of await client.getWorkchainShards(seqno)) {
      transactions += (await client.getShardTransactions(shard.workchain, shard.seqno, shard.shard)).length;
    }
  }
  assert(transactions > all.length);
  const fees = await client.estimateExternalMessageFee(clientWallet.address, {
    body: await clientWallet.createTransfer({
      seqno: await clientWallet.getSeqno(),
      secretKey: clientKeys.secretKey,
      sendMode: SendMode.PAY_GAS_SEPARATELY,
      messages: [internal({ to: ownerWallet.address, value: toNano("1") })],
    }),
    initCode: null,
    initData: null,
    ignoreSignature: true,
  });
  assert(fees.source_fees.gas_fee > 0);
  say("blocks counted, a transfer estimated");
}

async function main() {
  const { now } = await local("/localnet/status");
  await faucet(clientWallet.address, toNano("20"));
  await faucet(ownerWallet.address, toNano("20"));
  assert.strictEqual(await client.getBalance(clientWallet.address), toNano("20"));
  const channel = await closedByAgreement(now);
  await closedByWindow(now);
  await history(channel);
  const { held_nanograms, fees_nanograms } = await local("/localnet/status");
  assert.strictEqual(BigInt(held_nanograms) + BigInt(fees_nanograms), 10n ** 18n);
  say("money conserved");
}
main().catch((error) => { console.error(error.response?.data ?? error); process.exit(1); });
