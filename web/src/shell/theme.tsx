import { createContext, useContext, useEffect, useState, type ReactNode } from "react";

export type Theme = "light" | "dark";

const Context = createContext<{ theme: Theme; setTheme: (theme: Theme | null) => void; chosen: Theme | null }>({
  theme: "light",
  setTheme: () => undefined,
  chosen: null,
});

export const useTheme = () => useContext(Context);

/** The theme of the device until one is chosen; public/theme.js sets the first one before paint. */
export function Themed({ children }: { children: ReactNode }) {
  const [chosen, setChosen] = useState(() => localStorage.getItem("theme") as Theme | null);
  const [ofDevice, setOfDevice] = useState<Theme>(() => deviceTheme());
  useEffect(() => {
    const query = matchMedia("(prefers-color-scheme: dark)");
    const follow = () => setOfDevice(deviceTheme());
    query.addEventListener("change", follow);
    return () => query.removeEventListener("change", follow);
  }, []);
  const theme = chosen ?? ofDevice;
  // Before children's effects, which read colours off the page.
  document.documentElement.dataset["theme"] = theme;
  const setTheme = (next: Theme | null) => {
    if (next === null) localStorage.removeItem("theme");
    else localStorage.setItem("theme", next);
    setChosen(next);
  };
  return <Context.Provider value={{ theme, setTheme, chosen }}>{children}</Context.Provider>;
}

const deviceTheme = (): Theme => (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
