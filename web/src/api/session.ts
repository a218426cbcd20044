/** Signing in trades a key, or the link that the server printed, for a cookie that no script sees. */
import { ApiError, api, read, refusal } from "./client";

export async function signIn(secret: string): Promise<void> {
  // Not over the client, whose 401 sends one to the sign-in page.
  let response: Response;
  try {
    response = await fetch("/v1/tunesmith/session", { method: "POST", headers: { authorization: `Bearer ${secret}` } });
  } catch {
    throw new ApiError("The server cannot be reached.", 0);
  }
  if (!response.ok) throw await refusal(response);
}

export const signOut = async (): Promise<void> => {
  await read(api.DELETE("/v1/tunesmith/session")).catch(() => undefined);
};
