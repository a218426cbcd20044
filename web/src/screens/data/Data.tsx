import { Page } from "@/parts/Page";
import { Loading } from "@/parts/states";

export function Data() {
  return (
    <Page title="Data">
      <Loading />
    </Page>
  );
}
