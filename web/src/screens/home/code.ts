/** The few lines that turn an OpenAI client to this server. */
export function clientCode(baseUrl: string, model: string): Record<string, string> {
  return {
    Python: `from openai import OpenAI

client = OpenAI(base_url="${baseUrl}", api_key="YOUR_KEY")
messages = [{"role": "user", "content": "Hello"}]
answer = client.chat.completions.create(
    model="${model}", messages=messages
)`,
    Node: `import OpenAI from "openai";

const client = new OpenAI({ baseURL: "${baseUrl}", apiKey: "YOUR_KEY" });
const messages = [{ role: "user", content: "Hello" }];
const answer = await client.chat.completions.create({
  model: "${model}",
  messages,
});`,
    curl: `curl ${baseUrl}/chat/completions \\
  -H "Authorization: Bearer YOUR_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{"model": "${model}", "messages": [{"role": "user", "content": "Hello"}]}'`,
  };
}
