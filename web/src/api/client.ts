/** The one way to the server: typed by its own OpenAPI document, errors as one class. */
import createClient, { type Middleware } from "openapi-fetch";

import type { components, paths } from "./schema";

export type Schemas = components["schemas"];

/** A refusal of the server: OpenAI's error body. `status` 0: the server was not reached. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string | null = null,
    readonly param: string | null = null,
    readonly requestId: string | null = null,
  ) {
    super(message);
  }
}

export async function refusal(response: Response): Promise<ApiError> {
  const requestId = response.headers.get("x-request-id");
  try {
    const body = (await response.json()) as {
      error: { message: string; code: string | null; param: string | null };
    };
    const { message, code, param } = body.error;
    return new ApiError(message, response.status, code, param, requestId);
  } catch {
    const message = `The server answered with status ${response.status}.`;
    return new ApiError(message, response.status, null, null, requestId);
  }
}

export const SIGNED_OUT = "tunesmith:signed-out";

const errors: Middleware = {
  async onResponse({ response }) {
    if (response.ok) return;
    if (response.status === 401) window.dispatchEvent(new Event(SIGNED_OUT));
    throw await refusal(response);
  },
  onError({ error }) {
    if (error instanceof DOMException && error.name === "AbortError") return error;
    return new ApiError("The server cannot be reached. It may be restarting.", 0);
  },
};

const client = createClient<paths>({ baseUrl: window.location.origin });
client.use(errors);

export const api = client;

/** The body of an answer; the middleware has thrown for every refusal already. */
export async function read<T>(call: Promise<{ data?: T }>): Promise<T> {
  const { data } = await call;
  return data as T;
}

/** Uploads a file with its progress (0..1), which fetch() does not tell. */
export function upload(
  file: File,
  purpose: string,
  onProgress: (share: number) => void,
  signal?: AbortSignal,
): Promise<Schemas["FileObject"]> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/files");
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    };
    request.onload = () => {
      const response = new Response(request.responseText, { status: request.status });
      if (request.status === 200) {
        resolve(JSON.parse(request.responseText) as Schemas["FileObject"]);
      } else {
        void refusal(response).then(reject);
      }
    };
    request.onerror = () => reject(new ApiError("The upload was interrupted.", 0));
    signal?.addEventListener("abort", () => request.abort());
    request.onabort = () => reject(new ApiError("The upload was stopped.", 0));
    const form = new FormData();
    form.append("purpose", purpose);
    form.append("file", file);
    request.send(form);
  });
}
