/** Form fields: a label, the control, and below it help or what is wrong. */
import clsx from "clsx";
import { Switch } from "radix-ui";
import { useId, type InputHTMLAttributes, type ReactNode, type SelectHTMLAttributes, type TextareaHTMLAttributes } from "react";

const CONTROL =
  "rounded-lg border border-line-strong/60 bg-surface px-3 text-sm text-ink placeholder:text-faint disabled:opacity-50 aria-[invalid=true]:border-bad";

interface FieldProps {
  label: ReactNode;
  help?: ReactNode;
  error?: string | null | undefined;
  /** At the right of the label: what an empty field will become, and the like. */
  hint?: ReactNode;
}

function Field({ id, label, help, error, hint, children }: FieldProps & { id: string; children: ReactNode }) {
  return (
    <div className="min-w-0">
      <div className="mb-1.5 flex items-baseline justify-between gap-3">
        <label htmlFor={id} className="text-sm font-medium">
          {label}
        </label>
        {hint && <span className="text-xs text-faint">{hint}</span>}
      </div>
      {children}
      {error ? (
        <p id={`${id}-note`} className="mt-1 text-xs text-bad">
          {error}
        </p>
      ) : (
        help && (
          <p id={`${id}-note`} className="mt-1 text-xs text-faint">
            {help}
          </p>
        )
      )}
    </div>
  );
}

function wiring(id: string, { help, error }: FieldProps) {
  return {
    id,
    "aria-invalid": error ? true : undefined,
    "aria-describedby": help || error ? `${id}-note` : undefined,
  };
}

export function TextField({ label, help, error, hint, className, ...rest }: FieldProps & InputHTMLAttributes<HTMLInputElement>) {
  const id = useId();
  const field = { label, help, error, hint };
  return (
    <Field id={id} {...field}>
      <input className={clsx(CONTROL, "h-9 w-full", className)} {...wiring(id, field)} {...rest} />
    </Field>
  );
}

export function TextArea({ label, help, error, hint, className, ...rest }: FieldProps & TextareaHTMLAttributes<HTMLTextAreaElement>) {
  const id = useId();
  const field = { label, help, error, hint };
  return (
    <Field id={id} {...field}>
      <textarea className={clsx(CONTROL, "min-h-20 w-full py-2", className)} {...wiring(id, field)} {...rest} />
    </Field>
  );
}

export interface Option {
  value: string;
  label: string;
  group?: string;
}

/** The browser's own select: right on phones, with a keyboard and with screen readers. */
export function SelectField({ label, help, error, hint, options, className, ...rest }: FieldProps & { options: Option[] } & SelectHTMLAttributes<HTMLSelectElement>) {
  const id = useId();
  const field = { label, help, error, hint };
  return (
    <Field id={id} {...field}>
      <Select options={options} className={clsx("w-full", className)} {...wiring(id, field)} {...rest} />
    </Field>
  );
}

export function Select({ options, className, ...rest }: { options: Option[] } & SelectHTMLAttributes<HTMLSelectElement>) {
  const groups = [...new Set(options.map((option) => option.group))];
  const shown = (group: string | undefined) =>
    options
      .filter((option) => option.group === group)
      .map((option) => (
        <option key={option.value} value={option.value}>
          {option.label}
        </option>
      ));
  return (
    <select className={clsx(CONTROL, "h-9", className)} {...rest}>
      {groups.map((group) =>
        group === undefined ? shown(group) : (
          <optgroup key={group} label={group}>
            {shown(group)}
          </optgroup>
        ),
      )}
    </select>
  );
}

export function SwitchField({ label, checked, onChange }: { label: ReactNode; checked: boolean; onChange: (checked: boolean) => void }) {
  const id = useId();
  return (
    <div className="flex items-center gap-2">
      <Switch.Root
        id={id}
        checked={checked}
        onCheckedChange={onChange}
        className="h-5 w-9 shrink-0 rounded-full bg-line-strong transition-colors data-[state=checked]:bg-accent"
      >
        <Switch.Thumb className="block size-4 translate-x-0.5 rounded-full bg-surface transition-transform data-[state=checked]:translate-x-[1.125rem]" />
      </Switch.Root>
      <label htmlFor={id} className="text-sm">
        {label}
      </label>
    </div>
  );
}
