/** Where one can go, for the navigation, the command palette and its keys. */
import { Activity, Boxes, ChartNoAxesCombined, Database, FlaskConical, Gauge, House, MessagesSquare, Settings, type LucideIcon } from "lucide-react";

export interface Place {
  to: string;
  label: string;
  icon: LucideIcon;
  /** Pressed after "g". */
  key: string;
  group: "work" | "server";
}

export const PLACES: Place[] = [
  { to: "/", label: "Home", icon: House, key: "h", group: "work" },
  { to: "/data", label: "Data", icon: Database, key: "d", group: "work" },
  { to: "/jobs", label: "Jobs", icon: Activity, key: "j", group: "work" },
  { to: "/models", label: "Models", icon: Boxes, key: "m", group: "work" },
  { to: "/playground", label: "Playground", icon: MessagesSquare, key: "p", group: "work" },
  { to: "/evals", label: "Evals", icon: FlaskConical, key: "e", group: "work" },
  { to: "/usage", label: "Usage", icon: ChartNoAxesCombined, key: "u", group: "server" },
  { to: "/limits", label: "Limits", icon: Gauge, key: "l", group: "server" },
  { to: "/settings", label: "Keys & settings", icon: Settings, key: "s", group: "server" },
];
