// What a user of the openai package for JavaScript does with a provider, against one that was started.
// In: TUSSAH_URL (its /v1), TUSSAH_KEY, the models `chat`, `completions` and `embeddings` deployed. Out: exit code 0, or the
// first thing that is not as with OpenAI. It changes nothing but the provider's ledger.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.env.TUSSAH_NODE_MODULES + "/");
const { default: OpenAI, ...errors } = require("openai");
const { version } = JSON.parse(readFileSync(`${process.env.TUSSAH_NODE_MODULES}/openai/package.json`, "utf8"));

const options = { baseURL: process.env.TUSSAH_URL, apiKey: process.env.TUSSAH_KEY, maxRetries: 0, timeout: 120_000 };
const client = new OpenAI(options);
const messages = [{ role: "user", content: "What is silk made of? Answer in one sentence." }];
const asked = { model: "chat", messages, temperature: 0, max_tokens: 24, seed: 7 };

const names = [];
for await (const model of client.models.list()) names.push(model.id);
assert(names.includes("chat") && names.includes("embeddings"), String(names));

const { data: answer, response } = await client.chat.completions.create(asked).withResponse();
const text = answer.choices[0].message.content;
assert(text.length > 0);
assert.equal(response.headers.get("tussah-receipt"), answer.tussah.job_id);
assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);

const stream = await client.chat.completions.create({
  ...asked,
  stream: true,
  stream_options: { include_usage: true },
});
let streamed = "";
let usage;
for await (const chunk of stream) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(streamed, text);
assert.deepEqual(usage, answer.usage);

const schema = {
  type: "object",
  properties: { colour: { enum: ["white", "yellow"] }, soft: { type: "boolean" } },
  required: ["colour", "soft"],
  additionalProperties: false,
};
const structured = await client.chat.completions.create({
  ...asked,
  max_tokens: 60,
  response_format: { type: "json_schema", json_schema: { name: "silk", strict: true, schema } },
});
const found = JSON.parse(structured.choices[0].message.content);
assert(["white", "yellow"].includes(found.colour) && typeof found.soft === "boolean", JSON.stringify(found));

const likely = await client.chat.completions.create({ ...asked, logprobs: true, top_logprobs: 2 });
const tokens = likely.choices[0].logprobs.content;
assert.equal(tokens.map((token) => token.token).join(""), text);
for (const { token, bytes, logprob, top_logprobs } of tokens) {
  assert.equal(Buffer.from(bytes).toString(), token);
  assert(logprob <= 0 && top_logprobs.length <= 2 && top_logprobs[0].logprob === logprob, token);
}

const parameters = {
  type: "object",
  properties: { city: { enum: ["Oslo", "Rome"] }, days: { type: "integer", minimum: 1, maximum: 7 } },
  required: ["city", "days"],
  additionalProperties: false,
};
const weather = { type: "function", function: { name: "weather", description: "The weather of a city", parameters } };
const calling = {
  model: "chat",
  temperature: 0,
  max_tokens: 100,
  messages: [{ role: "user", content: "What is the weather in Rome for the next 3 days?" }],
  tools: [weather],
  tool_choice: "required",
};
const called = await client.chat.completions.create(calling);
const [call] = called.choices[0].message.tool_calls;
assert.equal(called.choices[0].finish_reason, "tool_calls");
assert.equal(call.function.name, "weather");
assert(["Oslo", "Rome"].includes(JSON.parse(call.function.arguments).city), call.function.arguments);
// In a stream the package puts the call together by itself, and runs the function, too.
let given;
const days = (args) => ((given = JSON.parse(args)), "Sunny.");
const runner = client.chat.completions.runTools({
  ...calling,
  tools: [{ type: "function", function: { ...weather.function, function: days } }],
  tool_choice: { type: "function", function: { name: "weather" } },
  stream: true,
});
await runner.done();
assert(["Oslo", "Rome"].includes(given.city) && given.days >= 1 && given.days <= 7, JSON.stringify(given));
assert(runner.messages.some((message) => message.role === "tool" && message.content === "Sunny."));

// The package asks for base64 by itself, and gives numbers.
const embedded = await client.embeddings.create({ model: "embeddings", input: "Caterpillars spin silk." });
const vector = embedded.data[0].embedding;
assert.equal(vector.length, 384);
assert(Math.abs(Math.hypot(...vector) - 1) < 1e-3);

await assert.rejects(client.chat.completions.create({ ...asked, model: "nobody" }), errors.NotFoundError);
await assert.rejects(client.chat.completions.create({ ...asked, n: 2 }), (error) => {
  assert(error instanceof errors.BadRequestError);
  assert.equal(error.param, "n");
  return true;
});
await assert.rejects(new OpenAI({ ...options, apiKey: "tsk_nobody" }).models.list(), errors.AuthenticationError);

await assert.rejects(
  client.chat.completions.create({ ...asked, max_tokens: 1000 }, { timeout: 10 }),
  errors.APIConnectionTimeoutError,
);
const leaving = await client.chat.completions.create({ ...asked, max_tokens: 1000, stream: true });
for await (const _ of leaving) break;
assert.equal((await client.chat.completions.create({ ...asked, max_tokens: 1 })).usage.completion_tokens, 1);

console.log(`openai for JavaScript ${version} is at home here`);
