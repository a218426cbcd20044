/** The same call in three languages, ready to be pasted. */

type Body = Record<string, unknown>;

const base = (): string => `${window.location.origin}/v1`;

/** What differs between calls: where it goes, and what is done with the answer. */
interface Call {
  path: string;
  python: { call: string; name: string; then: string[] };
  node: { call: string; name: string; then: string[] };
}

const CREATE_JOB: Call = {
  path: "/fine_tuning/jobs",
  python: { call: "client.fine_tuning.jobs.create", name: "job", then: ["print(job.id)"] },
  node: { call: "client.fineTuning.jobs.create", name: "job", then: ["console.log(job.id);"] },
};

const CHAT: Call = {
  path: "/chat/completions",
  python: {
    call: "client.chat.completions.create",
    name: "stream",
    then: ["for chunk in stream:", "    for choice in chunk.choices:", '        print(choice.delta.content or "", end="", flush=True)'],
  },
  node: {
    call: "client.chat.completions.create",
    name: "stream",
    then: ["for await (const chunk of stream) {", '  process.stdout.write(chunk.choices[0]?.delta.content ?? "");', "}"],
  },
};

/** The call that creates a job. */
export const createCodes = (body: Body): Record<string, string> => codes(CREATE_JOB, body);

/** The call that asks a model, and shows its answer as it comes. */
export const chatCodes = (body: Body): Record<string, string> => codes(CHAT, body);

const codes = (call: Call, body: Body): Record<string, string> => ({
  Python: python(call, body),
  Node: node(call, body),
  curl: curl(call, body),
});

function python({ python: { call, name, then } }: Call, body: Body): string {
  const lines = Object.entries(body).map(([key, value]) => `    ${key}=${pythonValue(value, 1)},`);
  return [
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url="${base()}", api_key="YOUR_KEY")`,
    `${name} = ${call}(`,
    ...lines,
    ")",
    ...then,
  ].join("\n");
}

function pythonValue(value: unknown, depth: number): string {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map((each) => pythonValue(each, depth)).join(", ")}]`;
  if (typeof value === "object") {
    const entries = Object.entries(value as Body);
    return `{${entries.map(([name, each]) => `${JSON.stringify(name)}: ${pythonValue(each, depth + 1)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}

function node({ node: { call, name, then } }: Call, body: Body): string {
  const lines = Object.entries(body).map(([key, value]) => `  ${key}: ${nodeValue(value)},`);
  return [
    'import OpenAI from "openai";',
    "",
    `const client = new OpenAI({ baseURL: "${base()}", apiKey: "YOUR_KEY" });`,
    `const ${name} = await ${call}({`,
    ...lines,
    "});",
    ...then,
  ].join("\n");
}

function nodeValue(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(nodeValue).join(", ")}]`;
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value as Body);
    const key = (name: string) => (/^[A-Za-z_]\w*$/.test(name) ? name : JSON.stringify(name));
    return entries.length === 0 ? "{}" : `{ ${entries.map(([name, each]) => `${key(name)}: ${nodeValue(each)}`).join(", ")} }`;
  }
  return JSON.stringify(value);
}

function curl({ path }: Call, body: Body): string {
  // Within single quotes a shell takes everything but a single quote as it stands.
  const text = JSON.stringify(body, null, 2).replaceAll("'", `'\\''`);
  return [
    `curl ${base()}${path} \\`,
    '  -H "Authorization: Bearer $OPENAI_API_KEY" \\',
    '  -H "Content-Type: application/json" \\',
    `  -d '${text}'`,
  ].join("\n");
}
