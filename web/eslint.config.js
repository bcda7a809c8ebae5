// What eslint checks in every package of this workspace.
import js from "@eslint/js";
import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["**/dist/**", "**/gen/**", "dashboard/**"] },
  js.configs.recommended,
  {
    files: ["client/src/**/*.ts", "hls/src/**/*.ts", "player/src/**/*.ts"],
    extends: [...tseslint.configs.strictTypeChecked],
    languageOptions: {
      parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname },
    },
    rules: {
      "@typescript-eslint/restrict-template-expressions": [
        "error",
        { allowNumber: true, allowBoolean: true },
      ],
      // Generated enums are numbers on the wire: reading one is a conversion that nothing can vouch for.
      "@typescript-eslint/no-unsafe-enum-assignment": "off",
      "@typescript-eslint/restrict-plus-operands": "off",
    },
  },
  { files: ["*/test/**/*.ts"], extends: [tseslint.configs.base] },
  {
    files: ["**/*.mjs", "**/test/**", "*.js"],
    languageOptions: {
      globals: {
        process: "readonly",
        console: "readonly",
        URL: "readonly",
        URLSearchParams: "readonly",
        fetch: "readonly",
        Buffer: "readonly",
        setTimeout: "readonly",
        clearTimeout: "readonly",
        window: "readonly",
        document: "readonly",
        performance: "readonly",
      },
    },
  },
);
