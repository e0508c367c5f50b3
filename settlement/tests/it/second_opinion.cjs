// Runs recorded transactions again in the reference implementation, which npm `@ton/sandbox`
// carries as WebAssembly, and says what came of each: one line of JSON a transaction.
// Usage: node second_opinion.cjs RECORD, with `@ton/sandbox` and `@ton/core` where NODE_PATH says.
const fs = require("fs");
const { Executor } = require("@ton/sandbox");
const { Cell, loadTransaction, loadShardAccount } = require("@ton/core");

const base64 = (hex) => Buffer.from(hex, "hex").toString("base64");
const hash = (cell) => cell.hash().toString("hex");

async function main() {
  const { config, steps } = JSON.parse(fs.readFileSync(process.argv[2], "utf-8"));
  const executor = await Executor.create();
  for (const step of steps) {
    const { result } = await executor.runTransaction({
      config: base64(config),
      libs: null,
      verbosity: "short",
      shardAccount: base64(step.before),
      message: Cell.fromHex(step.message),
      now: step.now,
      lt: BigInt(step.lt),
      randomSeed: Buffer.from(step.seed, "hex"),
      ignoreChksig: false,
      debugEnabled: false,
    });
    if (!result.success) {
      const exitCode = result.vmResults?.vmExitCode ?? null;
      console.log(JSON.stringify({ accepted: false, exitCode }));
      continue;
    }
    const cell = Cell.fromBase64(result.transaction);
    const transaction = loadTransaction(cell.beginParse());
    const compute = transaction.description.computePhase;
    const account = loadShardAccount(Cell.fromBase64(result.shardAccount).beginParse()).account;
    const state = account?.storage.state;
    console.log(JSON.stringify({
      accepted: true,
      exitCode: compute.type === "vm" ? compute.exitCode : null,
      actionCode: transaction.description.actionPhase?.resultCode ?? null,
      gas: compute.type === "vm" ? Number(compute.gasUsed) : 0,
      fees: transaction.totalFees.coins.toString(),
      balance: (account?.storage.balance.coins ?? 0n).toString(),
      debt: (account?.storageStats.duePayment ?? 0n).toString(),
      rentPaidAt: account?.storageStats.lastPaid ?? 0,
      status: state?.type ?? "missing",
      code: state?.type === "active" ? hash(state.state.code) : null,
      data: state?.type === "active" ? hash(state.state.data) : null,
      messages: transaction.outMessages.values().map((message) => ({
        value: message.info.value.coins.toString(),
        to: message.info.dest.toRawString(),
        bounce: message.info.bounce,
        body: hash(message.body),
      })),
    }));
  }
}
main().catch((error) => { console.error(error); process.exit(1); });
