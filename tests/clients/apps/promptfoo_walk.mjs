// promptfoo: two prompts, a streamed and a plain answer judged by assertions of its own.
//
//     node promptfoo_walk.mjs BASE_URL API_KEY MODEL TRAINING_FILE
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [baseUrl, apiKey, model] = process.argv.slice(2);
const place = mkdtempSync(join(tmpdir(), "promptfoo-"));
const config = {
  prompts: ["{{question}}", "Answer briefly: {{question}}"],
  providers: [
    {
      id: `openai:chat:${model}`,
      config: { apiBaseUrl: baseUrl, apiKey, max_tokens: 16, temperature: 0 },
    },
  ],
  tests: ["What comes after Friday?", "Is water wet?"].map((question) => ({
    vars: { question },
    assert: [{ type: "javascript", value: "output.length > 0" }],
  })),
};
writeFileSync(join(place, "promptfooconfig.json"), JSON.stringify(config));
const run = spawnSync(
  join(process.cwd(), "node_modules", ".bin", "promptfoo"),
  ["eval", "-c", join(place, "promptfooconfig.json"), "-o", join(place, "out.json"), "--no-cache", "--no-write"],
  {
    stdio: "inherit",
    env: {
      ...process.env,
      PROMPTFOO_DISABLE_TELEMETRY: "1",
      PROMPTFOO_DISABLE_UPDATE: "1",
      PROMPTFOO_CONFIG_DIR: place,
    },
  },
);
const { stats } = JSON.parse(readFileSync(join(place, "out.json"))).results;
if (run.status !== 0 || stats.successes !== 4 || !(stats.tokenUsage.total > 0)) {
  console.error("promptfoo failed", run.status, stats);
  process.exit(1);
}
console.log("promptfoo passed");
