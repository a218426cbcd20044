/** Lists that come in pages. */

interface Listed<T> {
  data: T[];
  has_more: boolean;
  last_id: string | null;
}

/** Asks on until there is no more; `ask` gets the id to continue after. */
export async function everyPage<T>(ask: (after: { after?: string }) => Promise<Listed<T>>): Promise<T[]> {
  const found: T[] = [];
  let page = await ask({});
  found.push(...page.data);
  while (page.has_more && page.last_id !== null) {
    page = await ask({ after: page.last_id });
    found.push(...page.data);
  }
  return found;
}
