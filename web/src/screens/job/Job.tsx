import { Page } from "@/parts/Page";
import { Loading } from "@/parts/states";

export function Job() {
  return (
    <Page title="Job">
      <Loading />
    </Page>
  );
}
