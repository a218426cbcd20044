/** Which project a screen is about; the choice is in the address. */
import { useNavigate } from "@tanstack/react-router";

import type { Schemas } from "@/api/client";

import { Select } from "./fields";

interface Props {
  projects: Schemas["Project"][];
  value: string | undefined;
  /** What no choice stands for; without it one project is always chosen. */
  all?: string;
}

export function ProjectSelect({ projects, value, all }: Props) {
  const navigate = useNavigate();
  const options = projects.map((project) => ({ value: project.id, label: project.name }));
  return (
    <Select
      aria-label="Project"
      className="max-w-full"
      value={value ?? ""}
      options={all === undefined ? options : [{ value: "", label: all }, ...options]}
      onChange={(event) => void navigate({ to: ".", search: event.target.value === "" ? {} : { project: event.target.value } })}
    />
  );
}
