import { Select } from "@/parts/fields";

import { useBase, useDatasetPlace } from "./Dataset";

/** The model whose tokenizer, template and context rows are held against. */
export function BaseSelect() {
  const { base, bases } = useBase();
  const { go } = useDatasetPlace();
  const names = base !== null && !bases.includes(base) ? [base, ...bases] : bases;
  return (
    <label className="flex items-center gap-2 text-sm whitespace-nowrap text-soft">
      As seen by
      <Select value={base ?? ""} onChange={(event) => go({ base: event.target.value }, true)} options={names.map((name) => ({ value: name, label: name }))} className="max-w-56" />
    </label>
  );
}
