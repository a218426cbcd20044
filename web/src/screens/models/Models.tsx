import { Page } from "@/parts/Page";
import { Loading } from "@/parts/states";

export function Models() {
  return (
    <Page title="Models">
      <Loading />
    </Page>
  );
}
