import { Page } from "@/parts/Page";
import { Loading } from "@/parts/states";

export function Jobs() {
  return (
    <Page title="Jobs">
      <Loading />
    </Page>
  );
}
