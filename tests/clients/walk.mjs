// Walks the calls of the Node client against a live server.
//     node walk.mjs BASE_URL API_KEY MODEL TRAINING_FILE
import assert from "node:assert/strict";
import fs from "node:fs";
import OpenAI from "openai";

const [baseURL, apiKey, model, path] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey });
const jobs = client.fineTuning.jobs;
const ended = ["succeeded", "failed", "cancelled"];

async function wait(id, statuses) {
  for (const start = Date.now(); Date.now() - start < 120_000; ) {
    const job = await jobs.retrieve(id);
    if (statuses.includes(job.status)) return job;
    assert(!ended.includes(job.status), JSON.stringify(job.error));
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`${id} did not become ${statuses}`);
}

async function walkFiles() {
  const file = await client.files.create({ file: fs.createReadStream(path), purpose: "fine-tune" });
  assert.equal((await client.files.retrieve(file.id)).bytes, fs.statSync(path).size);
  const content = await (await client.files.content(file.id)).text();
  assert.equal(content, fs.readFileSync(path, "utf8"));
  const ids = [];
  for await (const entry of client.files.list({ limit: 1 })) ids.push(entry.id);
  assert(ids.includes(file.id));
  return file.id;
}

async function walkJob(training_file) {
  const method = { type: "supervised", supervised: { hyperparameters: { n_epochs: 3 } } };
  const created = await jobs.create({ model, training_file, method, suffix: "node" });
  const job = await wait(created.id, ended);
  assert.equal(job.status, "succeeded", JSON.stringify(job.error));
  const ids = [];
  for await (const event of jobs.listEvents(job.id, { limit: 4 })) ids.push(event.id);
  assert.equal(new Set(ids).size, ids.length);
  const points = (await jobs.checkpoints.list(job.id)).data;
  assert.equal(points[0].fine_tuned_model_checkpoint, job.fine_tuned_model);
  return [job.fine_tuned_model, points.at(-1).fine_tuned_model_checkpoint];
}

async function walkChat(name) {
  const request = { model: name, messages: [{ role: "user", content: "Hello!" }], temperature: 0 };
  const whole = await client.chat.completions.create({ ...request, max_tokens: 24 });
  const stream = await client.chat.completions.create({
    ...request, max_tokens: 24, stream: true, stream_options: { include_usage: true },
  });
  let text = "", usage = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
  const broken = await client.chat.completions.create({ ...request, max_tokens: 200, stream: true });
  for await (const _ of broken) { broken.controller.abort(); break; }
}

async function walkSteering(training_file) {
  const long = { n_epochs: 50, batch_size: 1 };
  const job = await jobs.create({ model, training_file, hyperparameters: long });
  await wait(job.id, ["running"]);
  await jobs.pause(job.id);
  await wait(job.id, ["paused"]);
  await jobs.resume(job.id);
  await jobs.cancel(job.id);
  assert.equal((await wait(job.id, ended)).status, "cancelled");
}

const file = await walkFiles();
const [tuned, checkpoint] = await walkJob(file);
for (const name of [model, tuned, checkpoint]) await walkChat(name);
await walkSteering(file);
assert((await client.models.delete(tuned)).deleted);
await assert.rejects(client.models.retrieve(tuned), (error) => error.code === "model_not_found");
await client.files.delete(file);
console.log("openai for Node: all calls passed");
