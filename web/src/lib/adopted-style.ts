/** Stands in for react-style-singleton: the same hooks over constructed style sheets, which a
 *  content security policy without 'unsafe-inline' allows. */
import { useEffect } from "react";

export function styleHookSingleton(): (styles: string, isDynamic?: boolean) => void {
  let sheet: CSSStyleSheet | undefined;
  let numUsers = 0;
  return (styles, isDynamic) => {
    useEffect(() => {
      if (!sheet) {
        sheet = new CSSStyleSheet();
        sheet.replaceSync(styles);
        document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
      }
      numUsers += 1;
      return () => {
        numUsers -= 1;
        if (numUsers > 0) return;
        document.adoptedStyleSheets = document.adoptedStyleSheets.filter((each) => each !== sheet);
        sheet = undefined;
      };
      // Only dynamic styles may change while they are in use.
    }, [styles && isDynamic]);
  };
}

export function styleSingleton() {
  const useStyle = styleHookSingleton();
  return function Sheet({ styles, dynamic }: { styles: string; dynamic?: boolean }): null {
    useStyle(styles, dynamic);
    return null;
  };
}
