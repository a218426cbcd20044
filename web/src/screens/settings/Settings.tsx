import { Page } from "@/parts/Page";
import { Loading } from "@/parts/states";

export function Settings() {
  return (
    <Page title="Keys & settings">
      <Loading />
    </Page>
  );
}
