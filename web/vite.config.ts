import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

// The session is only taken with the page's own origin, which the proxy therefore leaves as it is.
const server = { target: process.env["TUNESMITH_URL"] ?? "http://127.0.0.1:8000", changeOrigin: false };

export default defineConfig({
  plugins: [react(), tailwindcss()],
  resolve: {
    alias: {
      "@": fileURLToPath(new URL("./src", import.meta.url)),
      // The original writes <style> elements, which the content security policy refuses.
      "react-style-singleton": fileURLToPath(new URL("./src/lib/adopted-style.ts", import.meta.url)),
    },
  },
  build: {
    outDir: "../tunesmith/ui",
    emptyOutDir: true,
    sourcemap: false,
    target: "es2022",
    // Nothing inlined as data: URLs: the policy allows this origin only.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: { proxy: { "/v1": server, "/tokenize": server, "/detokenize": server } },
});
