/** The same call in three languages, ready to be pasted. */

type Body = Record<string, unknown>;

const base = (): string => `${window.location.origin}/v1`;

/** The call that creates a job. */
export function createCodes(body: Body): Record<string, string> {
  return { Python: python(body), Node: node(body), curl: curl(body) };
}

function python(body: Body): string {
  const lines = Object.entries(body).map(([name, value]) => `    ${name}=${pythonValue(value, 1)},`);
  return [
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url="${base()}", api_key="YOUR_KEY")`,
    "job = client.fine_tuning.jobs.create(",
    ...lines,
    ")",
    "print(job.id)",
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

function node(body: Body): string {
  const lines = Object.entries(body).map(([name, value]) => `  ${name}: ${nodeValue(value)},`);
  return [
    'import OpenAI from "openai";',
    "",
    `const client = new OpenAI({ baseURL: "${base()}", apiKey: "YOUR_KEY" });`,
    "const job = await client.fineTuning.jobs.create({",
    ...lines,
    "});",
    "console.log(job.id);",
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

function curl(body: Body): string {
  // Within single quotes a shell takes everything but a single quote as it stands.
  const text = JSON.stringify(body, null, 2).replaceAll("'", `'\\''`);
  return [
    `curl ${base()}/fine_tuning/jobs \\`,
    '  -H "Authorization: Bearer $OPENAI_API_KEY" \\',
    '  -H "Content-Type: application/json" \\',
    `  -d '${text}'`,
  ].join("\n");
}
