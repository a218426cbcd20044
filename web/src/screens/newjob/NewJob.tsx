import { Page } from "@/parts/Page";
import { Loading } from "@/parts/states";

export function NewJob() {
  return (
    <Page title="New job">
      <Loading />
    </Page>
  );
}
