import { Page } from "@/parts/Page";
import { Loading } from "@/parts/states";

export function Dataset() {
  return (
    <Page title="Dataset">
      <Loading />
    </Page>
  );
}
