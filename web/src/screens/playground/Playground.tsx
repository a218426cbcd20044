import { Page } from "@/parts/Page";
import { Loading } from "@/parts/states";

export function Playground() {
  return (
    <Page title="Playground">
      <Loading />
    </Page>
  );
}
