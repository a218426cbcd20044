import { Page } from "@/parts/Page";
import { Loading } from "@/parts/states";

export function Compare() {
  return (
    <Page title="Compare">
      <Loading />
    </Page>
  );
}
